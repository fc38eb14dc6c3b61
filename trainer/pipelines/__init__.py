"""What differs between the things that can be learnt: ptychography and image classification. One folder each."""
