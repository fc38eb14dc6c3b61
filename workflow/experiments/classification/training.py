"""One training of the experiment on one rank: from the images to the figures."""

from __future__ import annotations

import functools
from typing import Any

from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.training import TaskTrainer
from ptychoflow.trainer.pipelines.classification.settings import ImageSettings
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.classification.case import PLAIN, ClassificationCase
from ptychoflow.workflow.experiments.classification.figures import figures
from ptychoflow.workflow.experiments.classification.plain import train_plainly
from ptychoflow.workflow.experiments.methods import Method


def train(case: ClassificationCase, folder: CaseFolder, rank: Rank) -> dict[str, Any]:
    """Train on all tasks and return the figures; the same on every rank. Blocks. The plain form has no checkpoints."""
    data = _opened(case.images)
    settings = case.own_training(training_set=len(data.files.train))
    images = case.images.model_copy(update={"sharding": case.sharding})
    if case.part == PLAIN:
        return figures(train_plainly(settings, images, data, rank=rank, seed=case.seed, ranks=case.ranks))
    checkpoints = None
    if case.checkpoint_epochs is not None:
        checkpoints = SectionCheckpoints(folder.checkpoints, rank, case.checkpoint_epochs)
    trainer = TaskTrainer(
        settings,
        images,
        data,
        rank=rank,
        seed=case.seed,
        from_scratch=case.method is Method.FROM_SCRATCH,
        checkpoints=checkpoints,
        after_epoch=folder.note_progress if rank.rank == 0 else None,
    )
    return figures(trainer.run())


@functools.lru_cache(maxsize=1)
def _opened(images: ImageSettings) -> ImageData:
    """Open a data set once for all trainings of a process: it may keep the images in memory."""
    return ImageData(images)
