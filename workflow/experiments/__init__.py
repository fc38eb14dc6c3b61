"""Experiments: the same stream learnt by several strategies, compared."""
