"""The trainer as a part of a run: receives samples, trains, publishes weights, reports."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus, TrainingResumed, WarningRaised
from ptychoflow.streaming.messages import StreamStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.trainer.checkpoints.checkpoint import Checkpoint
from ptychoflow.trainer.checkpoints.writer import CheckpointWriter
from ptychoflow.trainer.device import Rank, join_ranks
from ptychoflow.trainer.interface.pipeline import Pipeline
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.checkpointing import CheckpointContents, Checkpointing, restore
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.patience import on_any_rank, wait_together
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.receiver import SampleReceiver, let_go_again
from ptychoflow.trainer.online.recipe import HeadStart, Recipe
from ptychoflow.trainer.online.start import POLL_S, Announced, wait_for_samples
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.online.stream_checkpoint import open_ingest, validation_files
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledStore
from ptychoflow.trainer.pipelines.choice import MakeRecipe, choose_pipeline, format_of
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.strategies.buffer_check import check_buffer
from ptychoflow.trainer.strategies.factory import item_bytes, make_strategy
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.optimizer import load_optimizers
from ptychoflow.trainer.training.rank_seed import seed_rank
from ptychoflow.trainer.training.schedule import ScanSchedule

log = logging.getLogger(__name__)

NO_SAMPLE = (
    "no sample arrived: the scan ended and none of its frames can be trained on; the logs of acquisition and trainer "
    "tell which were void, unlabelled or refused; to image without training, set trainer.init_weights"
)


@dataclass(frozen=True)
class _Session:
    settings: StreamSettings
    network: NetworkSettings
    run: RunContext
    stop: threading.Event
    rank: Rank
    telemetry: TelemetrySender
    make_recipe: MakeRecipe

    @property
    def checkpoints(self) -> Path:
        return self.run.folder.checkpoints


@dataclass(frozen=True)
class _Work:
    """What is known once training can begin."""

    session: _Session
    announced: Announced
    ingest: SampleIngest
    publication: Publication | None
    """None on ranks other than 0."""
    checkpoint: Checkpoint | None
    learnt_before: nn.Module | None
    """What rank 0 has learnt before there was ground truth, if that is of use."""
    has_head_start: bool
    """Whether it has; known to all ranks."""

    @property
    def is_futile(self) -> bool:
        """There is nothing to learn from, and nothing was learnt before: the weights will be good for nothing."""
        begun = self.has_head_start or self.checkpoint is not None or self.session.settings.init_weights is not None
        return self.announced.frame_dtype is None and not begun


def train(settings: StreamSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event) -> None:
    """Train on the stream until the scan has ended, or `stop` is set; blocks. Called in every rank.

    torchrun's environment tells the rank; without it there is one. Rank 0 serves the weights and writes them to
    `run.folder.weights`. Goes on from the newest checkpoint in `run.folder.checkpoints`, if there is one,
    whatever number of ranks wrote it; all ranks must see that folder.

    Raises:
        UserError: a port in use, no CUDA where it is demanded, an interface that this host does not have, settings of
            another pipeline than the stream's, a network that does not fit the stream, initial weights or buffer sizes
            that cannot be used, a checkpoint of another stream or model, no sample to train on.
    """
    with (
        join_ranks(settings, interface=network.interface) as rank,
        closing(TelemetrySender(network, part=Part.TRAINER, rank=rank.rank)) as telemetry,
    ):
        session = _Session(settings, network, run, stop, rank, telemetry, choose_pipeline(settings))
        if rank.was_done:
            log.info("ranks before these were done, and one was killed on its way out")
            let_go_again(network, rank=rank.rank, world_size=rank.world_size, stop=stop)
            return
        learnt = _serve_and_publish(session) if rank.rank == 0 else _serve(session, publication=None)
        if not learnt:
            raise UserError(NO_SAMPLE)


def _serve_and_publish(session: _Session) -> bool:
    session.telemetry.send(PartStatus(PartState.RUNNING))
    with Publication(
        session.network,
        folder=session.run.folder,
        run=session.run.name,
        on_published=session.telemetry.send,
    ) as publication:
        learnt = _serve(session, publication=publication)
    if learnt:
        session.telemetry.send(PartStatus(PartState.DONE))
    return learnt


def _serve(session: _Session, *, publication: Publication | None) -> bool:
    """Receive and train; return whether there was anything to learn from, or training was stopped."""
    rank = session.rank
    checkpoint, ingest = open_ingest(
        session.settings, session.checkpoints, rank, format_of, spool_dir=session.run.folder.spool
    )
    receiver = SampleReceiver(
        session.network,
        ingest,
        rank=rank.rank,
        world_size=rank.world_size,
        warn=lambda text: session.telemetry.send(WarningRaised(text)),
    )
    beginning = None if checkpoint is not None else _Beginning(session, ingest, publication)
    with receiver:
        with ExitStack() as stack:
            load_optimizers()

            announced = wait_for_samples(
                ingest,
                stop=session.stop,
                on_scan=lambda scan: _announced(session, ingest, beginning, scan),
                meanwhile=beginning.go_on if beginning else lambda: False,
            )
            if announced is None:
                return True
            learnt = beginning.end() if beginning else None
            work = _Work(session, announced, ingest, publication, checkpoint, learnt, on_any_rank(learnt is not None))
            _train(work, stack)
        _wait_for_edges(work)
        if not work.is_futile and not session.stop.is_set():
            # ranks that are started again before this must be told of the stream and its end again
            ingest.queue.release_kept()
            receiver.finish(session.stop)
        return not work.is_futile or session.stop.is_set()


def _wait_for_edges(work: _Work) -> None:
    """Wait until the edges have the final weights, or no longer will, or `stop` is set. Collective."""
    session, publication = work.session, work.publication
    if publication is None or session.stop.is_set():
        wait_together(None)
        return

    def serve() -> None:
        publication.wait_until_served(session.settings.wait_until_served_s, session.stop)
        if not work.is_futile and not session.stop.is_set():
            session.rank.note_done()

    wait_together(serve)


def _train(work: _Work, stack: ExitStack) -> None:
    """Make the parts of the training, bring them to where the checkpoint stood, and run the loop."""
    session, ingest, publication = work.session, work.ingest, work.publication
    rank = session.rank
    recipe = _make_recipe(session, ingest, work.announced)
    learner = _learner(work, recipe)
    strategy = stack.enter_context(closing(_strategy(session, recipe.pipeline, work.announced)))
    report = StepReport(session.telemetry, rank=rank.rank, counts=ingest.counts, buffer=strategy.buffer)
    if work.announced.frame_dtype is None and publication is not None:
        report.warn(
            "the scan ended without a single training sample: the weights are "
            + ("untrained" if work.is_futile else "those that training started from")
        )
    callback = recipe.callback(learner, publication=publication, report=report)
    identity = {"network": recipe.identity, "strategy": session.settings.strategy}
    contents = CheckpointContents(identity, {"callback": callback, "report": report}, learner, strategy, recipe.own)
    memory = None
    if work.checkpoint is not None:
        memory = restore(work.checkpoint, contents, rank=rank.rank, ranks=rank.world_size)
        if publication is not None:
            report.send(TrainingResumed(work.checkpoint.step))
        callback.publish()
    loop = TrainingLoop(
        session.settings,
        stream=ingest.queue,
        strategy=strategy,
        learner=learner,
        callback=callback,
        report=report,
        stop=session.stop,
        checkpoints=_checkpointing(work, contents, stack),
    )
    if memory is not None:
        loop.restore(memory)
    loop.run()


def _checkpointing(work: _Work, contents: CheckpointContents, stack: ExitStack) -> Checkpointing | None:
    session, rank = work.session, work.session.rank
    # Ranks that torchrun starts again after they failed must find the end of the scan again.
    if not session.settings.checkpoint.enabled or work.is_futile:
        return None
    writer = CheckpointWriter(
        session.checkpoints,
        rank=rank.rank,
        world_size=rank.world_size,
        keep=session.settings.checkpoint.keep,
        on_failure=lambda reason: session.telemetry.send(WarningRaised(reason)),
    )
    stack.callback(writer.close)
    return Checkpointing(
        session.settings.checkpoint,
        contents,
        ingest=work.ingest,
        writer=writer,
        rank=rank.rank,
        commands=stack.enter_context(closing(CommandReceiver(session.network))) if rank.rank == 0 else None,
        earlier_validation=validation_files(work.checkpoint, rank) if work.checkpoint else (),
    )


def _announced(session: _Session, ingest: SampleIngest, beginning: _Beginning | None, scan: StreamStart) -> None:
    """Begin with what was announced, unless it cannot be learnt with these settings: samples may be minutes away."""
    recipe = _make_recipe(session, ingest, Announced(scan, None))
    settings, pipeline = session.settings, recipe.pipeline
    check_buffer(
        settings,
        ranks=session.rank.world_size,
        classes=pipeline.classes,
        item_bytes=lambda: item_bytes(settings.strategy, pipeline),
    )
    if beginning is not None:
        beginning.begin(recipe)


class _Beginning:
    """What rank 0 does before the first ground truth comes, so that an edge has something to work with.

    It publishes the weights that training starts from, if the settings name some; else it learns from frames alone.
    Other ranks only find out, together with it, whether there can be such a network.
    """

    def __init__(self, session: _Session, ingest: SampleIngest, publication: Publication | None) -> None:
        self._session, self._ingest, self._publication = session, ingest, publication
        self._head_start: HeadStart | None = None
        if publication is not None and session.settings.init_weights is None:
            ingest.unlabelled = UnlabelledStore()

    def begin(self, recipe: Recipe[Any]) -> None:
        """Publish, or prepare to learn, what was announced."""
        if self._publication is None:
            recipe.network()
        elif self._ingest.unlabelled is None:
            self._publish(recipe.initial_weights_writer())
        else:
            self._head_start = recipe.head_start(self._ingest.unlabelled, self._publish)
            if self._head_start is None:
                self._ingest.unlabelled = None

    def go_on(self) -> bool:
        """Learn for a moment from what has come; return whether there was anything."""
        until_s = time.monotonic() + POLL_S
        worked = False
        while self._head_start is not None and time.monotonic() < until_s and self._head_start.go_on():
            worked = True
        return worked

    def end(self) -> nn.Module | None:
        """Return what was learnt, if it is of use."""
        self._ingest.unlabelled = None
        head_start, self._head_start = self._head_start, None
        return None if head_start is None else head_start.end()

    def _publish(self, write: Writer) -> None:
        assert self._publication is not None  # noqa: S101  # of rank 0, which alone learns
        self._publication.publish(write, step=0, validation_loss=None, final=False)


def _make_recipe(session: _Session, ingest: SampleIngest, announced: Announced) -> Recipe[Any]:
    return session.make_recipe(announced, ingest=ingest, rank=session.rank, seed=session.run.seed)


def _learner(work: _Work, recipe: Recipe[Any]) -> Learner[Any]:
    session, settings = work.session, work.session.settings
    network = recipe.network()
    if settings.init_weights is None and work.checkpoint is None:
        recipe.fit_to_first_samples(network)
    if work.learnt_before is not None:
        network.load_state_dict(work.learnt_before.state_dict())
    log.info("network %s", recipe.identity)
    learner = Learner(
        network,
        recipe.pipeline,
        settings,
        schedule=ScanSchedule(settings.schedule, settings.learning_rate),
        device=session.rank.device,
        precision=session.rank.precision,
    )
    seed_rank(session.run.seed, rank=session.rank.rank)
    return learner


def _strategy(session: _Session, pipeline: Pipeline, announced: Announced) -> Strategy:
    device = session.rank.device
    if announced.frame_dtype is None:
        return Incremental(pipeline, device=device)
    return make_strategy(session.settings, pipeline, device=device, seed=session.run.seed)
