"""Whether the source of a run can be acquired and learnt, before anything starts."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_connection, make_decoder
from ptychoflow.acquisition.frame_check import streamed_dtype
from ptychoflow.acquisition.retrieval.engines import RETRIEVING, check_frame_shape
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.source_settings import HoldOut, ReplaySettings, RoleSettings, SimulationSettings
from ptychoflow.acquisition.sources import load_probe, open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.trainer.pipelines.classification.check import check_classifier, check_image_buffer
from ptychoflow.trainer.pipelines.ptychography.check import Shapes, check_network, check_scan_buffer
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.strategies.buffer_check import check_buffer
from ptychoflow.workflow.configuration.config import AnyConfig, ClassificationConfig, Config
from ptychoflow.workflow.contained import contained


def check_source(config: AnyConfig) -> None:
    """Open the source as the acquisition will, and see whether what comes fits what is to learn it.

    Raises:
        UserError: it cannot be read, has no ground truth where it is to bring that, does not fit the network, its
            initial weights or the rehearsal buffer, or nothing would be left to train on.
    """
    if isinstance(config, ClassificationConfig):
        _check_images(config)
        return
    match config.source:
        case ReplaySettings(paths=paths):
            contained(partial(_check_scan, config, config.source), paths)
        case SimulationSettings(probe=probe) if probe.measured is not None:
            contained(partial(_check_scan, config, config.source), [probe.measured])
        case SimulationSettings():
            _check_scan(config, config.source)
        case LiveSettings():
            _check_live(config, config.source)


def _check_images(config: ClassificationConfig) -> None:
    """List the images and deal out their classes; see if they fit."""
    tasks = order_stream(config.source, seed=config.run.seed)
    classes = sum(len(task.class_names) for task in tasks)
    source, trainer = config.source, config.trainer
    network = trainer.classifier(classes=classes, channels=source.channels, stored_px=source.stored_px)
    check_image_buffer(trainer, network, ranks=trainer.ranks)
    check_classifier(network, trainer.init_weights)


def _check_scan(config: Config, source: ReplaySettings | SimulationSettings) -> None:
    shapes = look_at_scan(source, config.retrieval, config.acquisition.roles, seed=config.run.seed)
    _check_training(config.trainer, shapes)


def _check_training(trainer: TrainerSettings, shapes: Shapes) -> None:
    check_network(trainer, shapes)
    check_scan_buffer(trainer, shapes, ranks=trainer.ranks)


def look_at_scan(
    source: ReplaySettings | SimulationSettings, retrieval: RetrievalSettings, roles: RoleSettings, *, seed: int
) -> Shapes:
    """Open a scan, look for the ground truth of its first perspective, and deal out the roles; return what comes.

    Raises:
        UserError: it cannot be read, phase retrieval cannot take its frames, it has no ground truth where it is to
            bring that, or nothing would be left to train on.
    """
    with closing(open_scan(source)) as scan:
        first = scan.perspective(0)
        if first.ground_truth is None:
            _require_retrieval(retrieval, "the scan")
        frame_shape_px = first.geometry.frame_shape_px
        check_frame_shape(retrieval.source, frame_shape_px)
        target_shape_px = retrieval.target_shape_for(frame_shape_px)
        assign_roles(
            roles,
            first.positions_px,
            perspective=0,
            perspectives=len(scan),
            target_shape_px=target_shape_px,
            seed=seed,
        )
        return Shapes(frame_shape_px, target_shape_px, streamed_dtype(first.dtype).name)


def _require_retrieval(retrieval: RetrievalSettings, source: str) -> None:
    """Raise `UserError` if ground truth is to come from a source that has none."""
    if retrieval.source not in RETRIEVING:
        raise UserError(
            f"retrieval.source is {retrieval.source.value}, but {source} brings no ground truth that could be used: "
            f"set retrieval.source to {GroundTruthSource.PTYCHI.value}"
        )


def _check_live(config: Config, source: LiveSettings) -> None:
    """See whether what the sources need is installed, and whether roles can be dealt out without knowing the end."""
    _require_retrieval(config.retrieval, "a detector")
    if source.preprocess.crop_px is None:
        check_buffer(config.trainer, ranks=config.trainer.ranks)
    else:
        frame_shape_px = source.preprocess.crop_px
        check_frame_shape(config.retrieval.source, frame_shape_px)
        _check_training(config.trainer, Shapes(frame_shape_px, config.retrieval.target_shape_for(frame_shape_px)))
    for one in source.sources:
        make_connection(one)
        make_decoder(one)
    if source.probe is not None:
        contained(partial(load_probe, source.probe), [source.probe])
    if config.acquisition.roles.hold_out is HoldOut.LAST_PERSPECTIVE and source.perspectives is None:
        raise UserError(
            "The last perspective cannot be held out: nobody knows how many the detector will send; give "
            "--set source.perspectives=N, or hold out a region instead"
        )
