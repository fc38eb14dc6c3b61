"""Positions from a table that is known before the scan: they hold for every series."""
