"""Who delivers how many items of a draw, and which."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def plan_draw(sizes: Mapping[int, int], wanted: int, rng: np.random.Generator) -> dict[int, int]:
    """How many items each rank delivers so that every set of `wanted` items over all ranks is equally likely.

    `sizes` are the ranks' numbers of live items. Drawn from the multivariate hypergeometric distribution, which is the
    law of the per-rank counts of a uniform draw without replacement. Ranks that deliver nothing are left out. Fewer
    than `wanted` items are planned only when fewer exist.
    """
    ranks = list(sizes)
    live = [sizes[rank] for rank in ranks]
    counts = rng.multivariate_hypergeometric(live, min(wanted, sum(live)), method="marginals")
    return {rank: int(count) for rank, count in zip(ranks, counts, strict=True) if count}


def draw_positions(size: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` distinct positions below `size`, every set of positions equally likely."""
    return rng.choice(size, count, replace=False, shuffle=False)
