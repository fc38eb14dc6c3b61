"""Which classes come when."""

from __future__ import annotations

import numpy as np

from ptychoflow.streaming.errors import UserError

Tasks = tuple[frozenset[int], ...]
"""The classes of each task."""


def deal_classes(classes: int, *, tasks: int, seed: int, setting: str = "images.tasks") -> Tasks:
    """Deal the classes 0 to `classes` - 1 to tasks at random, as evenly as possible.

    Args:
        classes: how many there are.
        tasks: how many share them.
        seed: of the order.
        setting: what the user calls `tasks`.

    Raises:
        UserError: there are more tasks than classes.
    """
    if tasks > classes:
        raise UserError(f"{setting} is {tasks}, but there are only {classes} classes; each task needs one at least")
    order = np.random.default_rng(seed).permutation(classes)
    return tuple(frozenset(part.tolist()) for part in np.array_split(order, tasks))
