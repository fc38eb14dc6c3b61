"""What the file of a perspective is made of, for who writes it and who reads it back."""

LABELS = {"amplitude": "amplitude", "phase": "phase (rad)"}
"""Channels of an image, and what they show."""
RESIDUAL = "residual"
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises for files that are damaged, or are not what an edge writes."""
