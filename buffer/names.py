"""Names of what a buffer's settings choose; importing them loads nothing else."""

from __future__ import annotations

from typing import Literal

PolicyName = Literal["random", "reservoir", "balanced_reservoir", "fifo", "loss_aware", "herding"]
TransportName = Literal["auto", "ucx", "tcp", "local"]
DrawName = Literal["uniform", "score"]
