"""Who delivers how many items of a draw, and which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def plan_draw(sizes: Mapping[int, int], wanted: int, rng: np.random.Generator) -> dict[int, int]:
    """How many items each rank delivers so that every set of `wanted` items over all ranks is equally likely.

    `sizes` are the ranks' numbers of live items. Drawn from the multivariate hypergeometric distribution, which is the
    law of the per-rank counts of a uniform draw without replacement, by its marginals: each rank's count is
    hypergeometric given those before. Ranks that deliver nothing are left out. Fewer than `wanted` items are planned
    only when fewer exist.
    """
    plan: dict[int, int] = {}
    remaining = sum(sizes.values())
    wanted = min(wanted, remaining)
    for rank, size in sizes.items():
        remaining -= size
        count = int(rng.hypergeometric(size, remaining, wanted)) if remaining and size and wanted else min(size, wanted)
        wanted -= count
        if count:
            plan[rank] = count
    return plan


def draw_positions(size: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` distinct positions below `size`, every set of positions equally likely."""
    return rng.choice(size, count, replace=False, shuffle=False)
