"""Simulated scans of a rotating specimen."""
