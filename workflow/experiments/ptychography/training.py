"""One training of the experiment on one rank: from the samples to the figures."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor

from ptychoflow.buffer.schema import DTypeName
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.weights_file import Manifest, write_weights
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.evaluation import Evaluation
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.rank_seed import seed_rank
from ptychoflow.trainer.training.schedule import ScanSchedule
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints
from ptychoflow.trainer.training.time_report import TimeReport
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.callback import LossCallback, LossRecord
from ptychoflow.workflow.experiments.ptychography.case import PtychographyCase, held_out_image_of, start_of, weights_of
from ptychoflow.workflow.experiments.ptychography.dataset import (
    Dataset,
    PerspectiveSamples,
    ground_truth_s,
    validation_samples,
)
from ptychoflow.workflow.experiments.ptychography.figures import figures
from ptychoflow.workflow.experiments.ptychography.held_out import image_held_out, predict
from ptychoflow.workflow.experiments.ptychography.memoriser import memorise
from ptychoflow.workflow.experiments.ptychography.ranking import rank_by_residual
from ptychoflow.workflow.experiments.ptychography.stream import (
    Convergence,
    SectionStream,
    everything_at_once,
    in_sequence,
)
from ptychoflow.workflow.experiments.ptychography.warm_start import write_start

log = logging.getLogger(__name__)

SCALE_FRAMES = 64
"""Frames of the first perspective that fix the network's input scale."""
NOTE_PERIOD_S = 0.5


@dataclass(frozen=True)
class Training:
    """What one rank trains with."""

    case: PtychographyCase
    folder: CaseFolder
    rank: Rank
    dataset: Dataset
    learner: Learner[FrameNetwork]
    strategy: Strategy
    mean_patch: MeanPatch
    record: LossRecord

    @cached_property
    def validation(self) -> dict[int, Arrays]:
        """The validation samples by perspective, on which losses are measured."""
        return validation_samples(self.dataset, self.case.comparison.validation_frames)

    @property
    def checkpoints(self) -> SectionCheckpoints:
        """Of this training."""
        return SectionCheckpoints(self.folder.checkpoints, self.rank, self.case.comparison.checkpoint_every)


class CaseReport(TimeReport):
    """Also notes how far the training is.

    Args:
        training: rank 0 of it takes notes.
        total_steps: how many steps there are, if that is known.
    """

    def __init__(self, training: Training, *, total_steps: int | None) -> None:
        super().__init__(training.strategy.buffer)
        self._training, self._total_steps = training, total_steps
        self._noted_s = 0.0

    def step_done(self, learner: Learner[Any], loss: Tensor, batch: Batch | None, agreed: Agreed) -> None:
        """Count the step, and note it now and then."""
        super().step_done(learner, loss, batch, agreed)
        now_s = time.monotonic()
        if self._training.rank.rank == 0 and now_s - self._noted_s >= NOTE_PERIOD_S:
            self._noted_s = now_s
            self._training.folder.note_progress(learner.steps, self._total_steps)


def _steps(training: Training) -> int:
    """Return the steps of a training on perspective after perspective."""
    per_step = training.rank.world_size * training.case.learning.batch_size
    frames = (round(training.case.passes * _frames(training, part)) for part in training.dataset)
    return sum(-(-count // per_step) for count in frames)


def _frames(training: Training, part: PerspectiveSamples) -> int:
    """Return for how many frames of a perspective there are steps."""
    count = len(part.rows(FrameRole.TRAIN))
    return count if training.strategy.buffer is None else count + len(part.rows(FrameRole.EXCLUDED))


def train(case: PtychographyCase, folder: CaseFolder, rank: Rank) -> dict[str, Any]:
    """Train, evaluate, and return the figures; the same on every rank. Blocks."""
    if case.method.remembers_only:
        return memorise(case, folder) if rank.rank == 0 else {}
    training = _prepare(case, folder, rank, case.samples())
    with closing(training.strategy):
        _train(training, case.learning, first=_go_on(training))
        # a last step of gradients that had waited for others comes after the last evaluation
        training.learner.averaged.share_statistics()
        constant = training.mean_patch.over_all_ranks()
        return _finish(training, constant) if rank.rank == 0 else {}


def _prepare(case: PtychographyCase, folder: CaseFolder, rank: Rank, dataset: Dataset) -> Training:
    settings, first = case.learning, dataset[0].samples
    frame_shape_px, target_shape_px = first["diffraction"].shape[1:], first["phase"].shape[1:]
    torch.manual_seed(case.seed)
    network = FrameNetwork(settings.network(frame_shape_px, target_shape_px))
    if settings.init_weights is not None:
        load_initial_weights(network, settings.init_weights)
    else:
        network.scale_input_to(network.input_power(torch.from_numpy(first["diffraction"][:SCALE_FRAMES].copy())))
    pipeline = Ptychography(
        frame_shape_px, target_shape_px, frame_dtype=cast(DTypeName, first["diffraction"].dtype.name)
    )
    learner = Learner(
        network,
        pipeline,
        settings,
        schedule=ScanSchedule(settings.schedule, settings.learning_rate),
        device=rank.device,
        precision=rank.precision,
    )
    seed_rank(case.seed, rank=rank.rank)
    return Training(
        case,
        folder,
        rank,
        dataset,
        learner=learner,
        strategy=make_strategy(settings, pipeline, device=rank.device, seed=case.seed),
        mean_patch=MeanPatch(target_shape_px, device=rank.device),
        record=LossRecord(),
    )


def _go_on(training: Training) -> int:
    """Load the newest checkpoint, if there is one; return the perspective to begin with."""
    found = training.checkpoints.newest()
    if found is None:
        return 0
    common, shards = training.checkpoints.restore(found, training.learner, training.strategy)
    vars(training.record).update(common["record"])
    rank = training.rank
    training.mean_patch.restore([shard["mean_patch"] for shard in shards[rank.rank :: rank.world_size]])
    log.info("going on after perspective %d, step %d", training.record.sections[-1], training.learner.steps)
    return training.record.sections[-1] + 1


def _train(training: Training, settings: TrainerSettings, *, first: int) -> None:
    case, rank, dataset = training.case, training.rank, training.dataset
    convergence = Convergence(case.comparison.from_scratch)
    deal = {"rank": rank.rank, "world_size": rank.world_size}
    at_once = case.method is Method.FROM_SCRATCH
    if at_once:
        sections = everything_at_once(dataset, until=convergence, seed=case.seed, **deal)
    else:
        sections = in_sequence(dataset, passes=case.passes, first=first, **deal)

    def after_section(number: int, found: Evaluation) -> None:
        convergence.note(found.mean_over_seen)
        due = (number + 1) % training.checkpoints.every == 0
        if not at_once and due and _frames(training, dataset[number]):
            _save(training)

    callback = LossCallback(
        training.record,
        learner=training.learner,
        evaluator=Evaluator(precision=rank.precision, device=rank.device),
        mean_patch=training.mean_patch,
        validation=_validation(training),
        after_section=after_section,
    )
    TrainingLoop(
        settings,
        stream=SectionStream(dataset, sections),
        strategy=training.strategy,
        learner=training.learner,
        callback=callback,
        report=CaseReport(training, total_steps=None if at_once else _steps(training)),
        stop=threading.Event(),
    ).run()


def _validation(training: Training) -> dict[int, Arrays]:
    """Return this rank's share of the validation samples by perspective."""
    rank = training.rank
    shares = {
        index: {name: array[rank.rank :: rank.world_size] for name, array in arrays.items()}
        for index, arrays in training.validation.items()
    }
    return {index: arrays for index, arrays in shares.items() if len(arrays["diffraction"])}


def _save(training: Training) -> None:
    """Write a checkpoint of all ranks; blocks until it is complete."""
    training.checkpoints.save(
        # a perspective whose gradients are skipped, or wait for others, makes no step, and its checkpoint needs a name
        training.learner.steps + len(training.record.sections),
        training.learner,
        training.strategy,
        common={"record": asdict(training.record)},
        own={"mean_patch": training.mean_patch.state()},
    )


def _finish(training: Training, constant: Patches) -> dict[str, Any]:
    """Keep the network and the held-out image, and return the figures; rank 0 alone.

    Args:
        training: is done.
        constant: the mean training patch of all ranks.
    """
    network = training.learner.averaged.network
    manifest = Manifest(
        version=1,
        step=training.learner.steps,
        network=network.config,
        validation_loss=fmean(training.record.matrix[-1]),
        final=True,
        created_at=datetime.now(UTC),
        run=training.case.name,
    )
    write_durably(weights_of(training.folder), write_weights(network, manifest, constant=constant))
    held_out = image_held_out(training.dataset, partial(predict, network), constant)
    if held_out is not None:
        held_out.write_image(held_out_image_of(training.folder))
    at_once = training.case.method is Method.FROM_SCRATCH
    ranking = rank_by_residual(training.dataset, training.validation, lambda _index, frames: predict(network, frames))
    if training.case.comparison.warm_start_epochs:
        write_start(training.dataset, partial(predict, network), start_of(training.folder))
    return figures(training.record, held_out, at_once=at_once) | {
        "residual_ranks": ranking,
        "ground_truth_s": ground_truth_s(training.dataset),
    }
