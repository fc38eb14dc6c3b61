"""Computing in a precision; what the network's layers compute in is a matter of the processor, results are float32."""

from __future__ import annotations

import torch

from ptychoflow.trainer.models.precision import Precision


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Return FLOAT32 or BFLOAT16 for `device`.

    A CPU without AVX-512 bfloat16 or AMX emulates it: measured 30 times slower than float32.
    """
    if precision is not Precision.AUTO:
        return precision
    if device.type == "cuda":
        return Precision.BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FLOAT32
    return Precision.BFLOAT16 if torch.cpu._is_avx512_bf16_supported() else Precision.FLOAT32


def autocast(precision: Precision, device: torch.device, *, cached: bool = True) -> torch.autocast:
    """Return the autocast context for a precision that `resolve` has returned.

    Args:
        precision: FLOAT32 or BFLOAT16.
        device: where the network runs.
        cached: keep cast weights until the context ends; what records the network's operations must not see that.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BFLOAT16, cache_enabled=cached)
