"""Scans and folders of images: reading, recording, simulating, phase retrieval, and the services that publish them."""
