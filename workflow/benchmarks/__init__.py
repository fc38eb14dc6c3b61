"""Benchmarks: each measures the project's code and a bare counterpart side by side in one run."""
