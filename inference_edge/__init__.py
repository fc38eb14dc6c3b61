"""The edge: images every frame with the newest weights, stitches and measures; or classifies every image."""
