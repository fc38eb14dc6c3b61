"""Whether a mask of detector pixels is meant the other way round."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOSTLY = 0.5
"""More of a frame, or of what is lit, than this is rarely masked; the other way round it is."""


def mostly_masked(mask: npt.NDArray[np.bool_], light: npt.NDArray[np.float64]) -> list[str]:
    """Return of what a mask (y, x) ignores more than it leaves, in words: of the pixels, of the light.

    `light` (y, x) is the mean frame, masked pixels and all, 0 where nothing changes from frame to frame. Most of it is
    masked if most of it, and most of the pixels that it falls on, are: one hot pixel may hold more than all others, and
    a mask may cut the direct beam out of what surrounds it.
    """
    ignored = []
    if (share := float(mask.mean())) > MOSTLY:
        ignored.append(f"{share:.0%} of the pixels")
    if (total := float(light.sum())) > 0:
        of_light, of_lit = float(light[mask].sum()) / total, float(mask[light > 0].mean())
        if min(of_light, of_lit) > MOSTLY:
            ignored.append(f"{of_light:.0%} of the light")
    return ignored
