"""Random numbers of torch's own generators, such as those of crops, that differ from rank to rank."""

from __future__ import annotations

import numpy as np
import torch


def seed_rank(seed: int, *, rank: int) -> None:
    """Seed torch on a rank other than 0 with what is made of the seed and the rank; rank 0 goes on as it does.

    Call it once the network is made, which begins at the same weights on all ranks: else all would draw alike.
    """
    if rank > 0:
        torch.manual_seed(int(np.random.SeedSequence((seed, rank)).generate_state(1, np.uint64)[0]))
