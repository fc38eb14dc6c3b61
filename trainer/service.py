"""The trainer as a part of a run: receives samples, trains, publishes weights, reports."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from buffer.schema import DTypeName
from streaming.commands import CommandReceiver
from streaming.events import Part, PartState, PartStatus, TrainingResumed, WarningRaised
from streaming.messages import ScanStart
from streaming.settings import NetworkSettings, RunContext
from streaming.telemetry import TelemetrySender
from trainer.arrivals import Arrivals
from trainer.checkpoint import Checkpoint
from trainer.checkpoint_writer import CheckpointWriter
from trainer.constant import MeanPatch
from trainer.device import Rank, join_ranks
from trainer.evaluation import Evaluator
from trainer.intake import Intake
from trainer.learner import Learner
from trainer.loop import TrainingLoop
from trainer.models.frame_network import FrameNetwork
from trainer.models.initial_weights import load_initial_weights
from trainer.models.settings import NetworkConfig
from trainer.pipelines.ptychography.checkpointing import Checkpointing, Parts, restore
from trainer.pipelines.ptychography.outcome import ScanOutcome
from trainer.pipelines.ptychography.pipeline import Ptychography
from trainer.pipelines.ptychography.scan_checkpoint import open_arrivals, validation_files
from trainer.pipelines.ptychography.scan_stream import ScanStream
from trainer.publication import Publication
from trainer.reporting import StepReport
from trainer.schedule import ScanSchedule
from trainer.settings import TrainerSettings
from trainer.start import Announced, fit_input_scale, wait_for_samples, wait_for_scan
from trainer.strategies.incremental import Incremental
from trainer.strategies.making import make_strategy
from trainer.strategies.strategy import Strategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Session:
    settings: TrainerSettings
    network: NetworkSettings
    run: RunContext
    stop: threading.Event
    rank: Rank
    telemetry: TelemetrySender

    @property
    def checkpoints(self) -> Path:
        return self.run.directory / "checkpoints"


@dataclass(frozen=True)
class _Work:
    """What is known once training can begin."""

    session: _Session
    announced: Announced
    arrivals: Arrivals
    publication: Publication | None
    """None on ranks other than 0."""
    checkpoint: Checkpoint | None


def train(settings: TrainerSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event) -> None:
    """Train on the stream until the scan has ended, or `stop` is set; blocks. Called in every rank.

    torchrun's environment tells the rank; without it there is one. Rank 0 serves the weights and writes them to
    `run.directory / "weights"`. Goes on from the newest checkpoint in `run.directory / "checkpoints"`, if there is one,
    whatever number of ranks wrote it; all ranks must see that folder.

    Raises:
        UserError: a port in use, no CUDA where it is demanded, a network that does not fit the scan, initial weights
            or buffer sizes that cannot be used, a checkpoint of another scan or model.
    """
    with join_ranks(settings) as rank, closing(TelemetrySender(network, sender=f"trainer-{rank.rank}")) as telemetry:
        session = _Session(settings, network, run, stop, rank, telemetry)
        if rank.rank == 0:
            _serve_and_publish(session)
        else:
            _serve(session, publication=None)


def _serve_and_publish(session: _Session) -> None:
    session.telemetry.send(PartStatus(Part.TRAINER, PartState.RUNNING))
    with Publication(
        session.network,
        folder=session.run.directory / "weights",
        run=session.run.name,
        on_published=session.telemetry.send,
    ) as publication:
        _serve(session, publication=publication)
        if not session.stop.is_set():
            publication.wait_until_served(session.settings.wait_until_served_s)
    session.telemetry.send(PartStatus(Part.TRAINER, PartState.DONE))


def _serve(session: _Session, *, publication: Publication | None) -> None:
    """Receive and train."""
    rank = session.rank
    checkpoint, arrivals = open_arrivals(session.settings, session.checkpoints, rank)
    with Intake(session.network, arrivals, rank=rank.rank, world_size=rank.world_size), ExitStack() as stack:
        if checkpoint is None and publication is not None and session.settings.init_weights is not None:
            _publish_initial(session, arrivals, publication)
        announced = wait_for_samples(arrivals, stop=session.stop)
        if announced is None:
            return
        _train(_Work(session, announced, arrivals, publication, checkpoint), stack)


def _train(work: _Work, stack: ExitStack) -> None:
    """Make the parts of the training, bring them to where the checkpoint stood, and run the loop."""
    session, arrivals, publication = work.session, work.arrivals, work.publication
    rank, scan = session.rank, work.announced.scan
    pipeline = _pipeline(work.announced)
    learner = _learner(work, pipeline)
    strategy = _strategy(session, pipeline, work.announced)
    if strategy.buffer is not None:
        stack.enter_context(strategy.buffer)
    report = StepReport(session.telemetry, rank=rank.rank, counts=arrivals.counts, buffer=strategy.buffer)
    if work.announced.frame_dtype is None and publication is not None:
        report.warn("the scan ended without a single training sample: the weights are untrained")
    mean_patch = MeanPatch(scan.target_shape_px, device=rank.device)
    outcome = ScanOutcome(
        session.settings,
        arrivals=arrivals,
        learner=learner,
        evaluator=Evaluator(precision=rank.precision, device=rank.device),
        mean_patch=mean_patch,
        publication=publication,
        report=report,
    )
    identity = {"network": learner.averaged.network.config.model_dump_json(), "strategy": session.settings.strategy}
    parts = Parts(identity, {"outcome": outcome, "report": report}, learner, strategy, mean_patch)
    memory = None
    if work.checkpoint is not None:
        memory = restore(work.checkpoint, parts, rank=rank.rank, ranks=rank.world_size)
        if publication is not None:
            report.send(TrainingResumed(work.checkpoint.step))
        outcome.publish()
    loop = TrainingLoop(
        session.settings,
        stream=ScanStream(arrivals),
        strategy=strategy,
        learner=learner,
        outcome=outcome,
        report=report,
        stop=session.stop,
        checkpoints=_checkpointing(work, parts, stack) if session.settings.checkpoint.enabled else None,
    )
    if memory is not None:
        loop.restore(memory)
    loop.run()


def _checkpointing(work: _Work, parts: Parts, stack: ExitStack) -> Checkpointing:
    session, rank = work.session, work.session.rank
    writer = CheckpointWriter(
        session.checkpoints,
        rank=rank.rank,
        world_size=rank.world_size,
        keep=session.settings.checkpoint.keep,
        on_failure=lambda reason: session.telemetry.send(WarningRaised(Part.TRAINER, reason)),
    )
    stack.callback(writer.close)
    return Checkpointing(
        session.settings.checkpoint,
        parts,
        arrivals=work.arrivals,
        writer=writer,
        rank=rank.rank,
        commands=stack.enter_context(closing(CommandReceiver(session.network))) if rank.rank == 0 else None,
        earlier_validation=validation_files(work.checkpoint, rank) if work.checkpoint else (),
    )


def _publish_initial(session: _Session, arrivals: Arrivals, publication: Publication) -> None:
    """Let an edge image with the weights that training starts from, before the first ground truth comes."""
    scan = wait_for_scan(arrivals, stop=session.stop)
    if scan is None:
        return
    nothing_learned = MeanPatch(scan.target_shape_px, device=torch.device("cpu")).on_this_rank()
    publication.publish(_network(session, scan), nothing_learned, step=0, validation_loss=None, final=False)


def _network(session: _Session, scan: ScanStart) -> FrameNetwork:
    """Return the network that training starts from; without initial weights its input scale is still open."""
    settings = session.settings
    config = NetworkConfig(
        model=settings.model,
        frame_shape_px=scan.frame_shape_px,
        target_shape_px=scan.target_shape_px,
        amplitude_scale=settings.amplitude_scale,
    )
    torch.manual_seed(session.run.seed)
    network = FrameNetwork(config)
    if settings.init_weights is not None:
        load_initial_weights(network, settings.init_weights)
        log.info("training starts from %s", settings.init_weights)
    return network


def _pipeline(announced: Announced) -> Ptychography:
    scan = announced.scan
    # Without a single sample, nothing will ever have this dtype.
    dtype = cast(DTypeName, announced.frame_dtype or "uint16")
    return Ptychography(scan.frame_shape_px, scan.target_shape_px, frame_dtype=dtype)


def _learner(work: _Work, pipeline: Ptychography) -> Learner[FrameNetwork]:
    session, settings = work.session, work.session.settings
    network = _network(session, work.announced.scan)
    if settings.init_weights is None and work.checkpoint is None:
        fit_input_scale(network, work.arrivals)
    log.info("network %s, input scale %.3g", network.config.model_dump_json(), network.input_scale.item())
    return Learner(
        network,
        pipeline,
        settings,
        schedule=ScanSchedule(settings.schedule, settings.learning_rate),
        device=session.rank.device,
        precision=session.rank.precision,
    )


def _strategy(session: _Session, pipeline: Ptychography, announced: Announced) -> Strategy:
    device = session.rank.device
    if announced.frame_dtype is None:
        return Incremental(pipeline, device=device)
    return make_strategy(session.settings, pipeline, device=device, seed=session.run.seed)
