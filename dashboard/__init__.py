"""The live page of a run; it knows telemetry and nothing else."""
