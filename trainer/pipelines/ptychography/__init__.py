"""Ptychography: from a diffraction frame to the amplitude and the phase of a patch of the object."""
