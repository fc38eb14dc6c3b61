"""Checkpoints on the disk: files of nested state, folders that are complete or do not count."""
