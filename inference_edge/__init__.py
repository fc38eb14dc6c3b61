"""The edge: images every frame with the newest weights, stitches, and measures against the reference."""
