"""Class-incremental learning on images: strategies beside each other on the same tasks, several seeds each."""
