"""Arithmetic of the network's layers, as settings name it; see `arithmetic`."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Type that convolutions compute in."""

    AUTO = "auto"
    """bfloat16 where the processor has instructions for it, else float32."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
