"""Whether the source of a run can be acquired, before anything starts."""

from __future__ import annotations

from contextlib import closing

from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.workflow.configuration.config import AnyConfig, ClassificationConfig, Config


def check_source(config: AnyConfig) -> None:
    """Open the source as the acquisition will.

    Raises:
        UserError: it cannot be read, or nothing would be left to train on.
    """
    if isinstance(config, ClassificationConfig):
        order_stream(config.source, seed=config.run.seed)
    else:
        _check_scan(config)


def _check_scan(config: Config) -> None:
    """Open the scan and deal out the roles of its first perspective."""
    with closing(open_scan(config.source)) as scan:
        first = scan.perspective(0)
        assign_roles(
            config.acquisition.roles,
            first.positions_px,
            perspective=0,
            perspectives=len(scan),
            target_shape_px=config.retrieval.target_shape_for(first.geometry.frame_shape_px),
            seed=config.run.seed,
        )
