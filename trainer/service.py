"""The trainer as a part of a run: receives samples, trains, publishes weights, reports."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import cast

import torch

from buffer.schema import DTypeName
from streaming.events import Part, PartState, PartStatus
from streaming.messages import ScanStart
from streaming.settings import NetworkSettings, RunContext
from streaming.telemetry import TelemetrySender
from trainer.arrivals import Arrivals
from trainer.constant import MeanPatch
from trainer.device import Rank, join_ranks
from trainer.evaluation import Evaluator
from trainer.intake import Intake
from trainer.learner import Learner
from trainer.loop import TrainingLoop
from trainer.models.frame_network import FrameNetwork
from trainer.models.initial_weights import load_initial_weights
from trainer.models.settings import NetworkConfig
from trainer.pipelines.ptychography.outcome import ScanOutcome
from trainer.pipelines.ptychography.pipeline import Ptychography
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


def train(settings: TrainerSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event) -> None:
    """Train on the stream until the scan has ended, or `stop` is set; blocks. Called in every rank.

    torchrun's environment tells the rank; without it there is one. Rank 0 serves the weights and writes them to
    `run.directory / "weights"`.

    Raises:
        UserError: a port in use, no CUDA where it is demanded, a network that does not fit the scan, initial weights
            or buffer sizes that cannot be used.
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
    rank, arrivals = session.rank, Arrivals(queue_samples=session.settings.queue_samples)
    with Intake(session.network, arrivals, rank=rank.rank, world_size=rank.world_size), ExitStack() as stack:
        if publication is not None and session.settings.init_weights is not None:
            _publish_initial(session, arrivals, publication)
        announced = wait_for_samples(arrivals, stop=session.stop)
        if announced is None:
            return
        pipeline = _pipeline(announced)
        learner = _learner(session, pipeline, announced.scan, arrivals)
        strategy = _strategy(session, pipeline, announced)
        if strategy.buffer is not None:
            stack.enter_context(strategy.buffer)
        report = StepReport(session.telemetry, rank=rank.rank, counts=arrivals.counts, buffer=strategy.buffer)
        if announced.frame_dtype is None and publication is not None:
            report.warn("the scan ended without a single training sample: the weights are untrained")
        outcome = ScanOutcome(
            session.settings,
            arrivals=arrivals,
            learner=learner,
            evaluator=Evaluator(precision=rank.precision, device=rank.device),
            mean_patch=MeanPatch(announced.scan.target_shape_px, device=rank.device),
            publication=publication,
            report=report,
        )
        TrainingLoop(
            session.settings,
            stream=ScanStream(arrivals),
            strategy=strategy,
            learner=learner,
            outcome=outcome,
            report=report,
            stop=session.stop,
        ).run()


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


def _learner(session: _Session, pipeline: Ptychography, scan: ScanStart, arrivals: Arrivals) -> Learner[FrameNetwork]:
    settings, network = session.settings, _network(session, scan)
    if settings.init_weights is None:
        fit_input_scale(network, arrivals)
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
