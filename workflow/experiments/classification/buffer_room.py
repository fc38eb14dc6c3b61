"""Whether the buffers that an experiment asks for can hold what they must, before hours are spent on other methods."""

from __future__ import annotations

from collections.abc import Iterable

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.workflow.experiments.classification.case import BUFFER_SHARE, PLAIN, REPRESENTATIVES, ClassificationCase


def require_room(cases: Iterable[ClassificationCase], *, training_set: int, classes: int) -> None:
    """Look at all buffers that are given as a share of `training_set` images of so many classes.

    Raises:
        UserError: one has less room than items for every class on every rank, or than representatives.
    """
    for case in cases:
        settings = case.own_training(training_set=training_set)
        buffer = settings.buffer
        if case.part == PLAIN or settings.strategy is StrategyName.INCREMENTAL or buffer.capacity_bytes > 0:
            continue
        drawn = settings.strategy.draws * buffer.representatives
        needed = max(case.ranks * classes, drawn)
        if buffer.capacity < needed:
            share = "experiment.buffer_shares" if case.part == BUFFER_SHARE else "training.buffer_share"
            draw = "experiment.representatives" if case.part == REPRESENTATIVES else "training.buffer.representatives"
            raise UserError(
                f"{share} = {case.buffer_share:g} of {training_set} training images is a buffer of {buffer.capacity}, "
                f"but {case.method} on {case.ranks} ranks needs room for {needed}: one of each of {classes} classes "
                f"on every rank, and {drawn} representatives; raise {share}, or lower {draw} or the ranks"
            )
