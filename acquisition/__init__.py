"""Scans: reading, recording, simulating, phase retrieval, and the service that publishes them."""
