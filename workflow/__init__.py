"""What people start: commands, configuration, launcher, experiments, benchmarks, report."""
