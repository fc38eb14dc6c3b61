"""Networks that map a diffraction frame to a patch of the object, and the file their weights travel in."""
