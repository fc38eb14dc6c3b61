"""A run's configuration: presets, files and options, merged and checked."""
