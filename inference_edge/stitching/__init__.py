"""Stitched images: patches into one image, its quality against a reference, pictures of it."""
