"""Whether the source of a run can be acquired, before anything starts."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_connection, make_decoder
from ptychoflow.acquisition.retrieval.engines import RETRIEVING
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.source_settings import HoldOut, ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import load_probe, open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.trainer.models.ptychonn_settings import require_fit
from ptychoflow.workflow.configuration.config import AnyConfig, ClassificationConfig, Config
from ptychoflow.workflow.contained import contained


def check_source(config: AnyConfig) -> None:
    """Open the source as the acquisition will.

    Raises:
        UserError: it cannot be read, has no ground truth where it is to bring that, its frames do not fit the network,
            or nothing would be left to train on.
    """
    if isinstance(config, ClassificationConfig):
        order_stream(config.source, seed=config.run.seed)
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


def _check_scan(config: Config, source: ReplaySettings | SimulationSettings) -> None:
    """Open the scan, look for the ground truth of its first perspective, see if frames fit, and deal out the roles."""
    with closing(open_scan(source)) as scan:
        first = scan.perspective(0)
        if first.ground_truth is None:
            _require_retrieval(config, "the scan")
        frame_shape_px = first.geometry.frame_shape_px
        target_shape_px = config.retrieval.target_shape_for(frame_shape_px)
        require_fit(config.trainer.model, frame_shape_px, target_shape_px)
        assign_roles(
            config.acquisition.roles,
            first.positions_px,
            perspective=0,
            perspectives=len(scan),
            target_shape_px=target_shape_px,
            seed=config.run.seed,
        )


def _require_retrieval(config: Config, source: str) -> None:
    """Raise `UserError` if ground truth is to come from a source that has none."""
    asked = config.retrieval.source
    if asked not in RETRIEVING:
        raise UserError(
            f"retrieval.source is {asked.value}, but {source} brings no ground truth that could be used: set "
            f"retrieval.source to {GroundTruthSource.PTYCHI.value}"
        )


def _check_live(config: Config, source: LiveSettings) -> None:
    """See whether what the sources need is installed, and whether roles can be dealt out without knowing the end."""
    _require_retrieval(config, "a detector")
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
