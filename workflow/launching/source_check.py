"""Whether the source of a run can be acquired, before anything starts."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_connection, make_decoder
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.source_settings import HoldOut, ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import load_probe, open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import AnyConfig, ClassificationConfig, Config
from ptychoflow.workflow.contained import contained


def check_source(config: AnyConfig) -> None:
    """Open the source as the acquisition will.

    Raises:
        UserError: it cannot be read, or nothing would be left to train on.
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
    """Open the scan and deal out the roles of its first perspective."""
    with closing(open_scan(source)) as scan:
        first = scan.perspective(0)
        assign_roles(
            config.acquisition.roles,
            first.positions_px,
            perspective=0,
            perspectives=len(scan),
            target_shape_px=config.retrieval.target_shape_for(first.geometry.frame_shape_px),
            seed=config.run.seed,
        )


def _check_live(config: Config, source: LiveSettings) -> None:
    """See whether what the sources need is installed, and whether roles can be dealt out without knowing the end."""
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
