"""The configuration of a run: one section per part, resolved from a preset, a file and options."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, ValidationError

from acquisition.retrieval.settings import RetrievalSettings
from acquisition.settings import AcquisitionSettings
from acquisition.source_settings import SourceSettings
from dashboard.settings import DashboardSettings
from inference_edge.settings import EdgeSettings
from streaming.errors import UserError
from streaming.settings import NetworkSettings, Settings
from trainer.settings import TrainerSettings
from workflow.config_errors import explain
from workflow.overrides import Layer, Table, merge, parse_assignments, read_layer
from workflow.presets import read_preset
from workflow.run_settings import RunSettings


class Config(Settings):
    """Everything that a run needs to know; one section per part."""

    run: RunSettings = Field(default_factory=RunSettings)
    """Name, folder, seed."""
    source: SourceSettings
    """The scan: a file that is replayed, or a simulation."""
    acquisition: AcquisitionSettings = Field(default_factory=AcquisitionSettings)
    """How frames are published and which are held out."""
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)
    """Where ground truth comes from."""
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)
    """Model, strategy, rehearsal buffer, schedule."""
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    """Inference, stitching and scores."""
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)
    """The page that shows the run."""
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    """Hosts, ports and keys."""


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    assignments: Iterable[str] = (),
    *,
    options: Table | None = None,
) -> Config:
    """Resolve a configuration: the preset, over it the file, over it `--set` assignments, over them the options.

    Args:
        preset: name of a preset, or None.
        file: a TOML file, or None.
        assignments: texts `section.key=value`.
        options: nested table made of command-line options.

    Raises:
        UserError: one line that names every wrong key, where it was set, and the nearest valid one.
    """
    layers = [read_preset(preset)] if preset is not None else []
    layers += [read_layer(file)] if file is not None else []
    layers += [parse_assignments(assignments), Layer("the command line", options or {})]
    return _validate(layers)


def write_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as TOML, in a form that `load_config` reads back to an equal one."""
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")


def _validate(layers: list[Layer]) -> Config:
    values, origins = merge(layers)
    if "source" not in values:
        raise UserError(
            "nothing to scan: name a scan file, or choose a --preset, or give a --config file with a [source] section"
        )
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise explain(error, model=Config, values=values, origins=origins) from None


def option_table(**dotted: Any) -> Table:
    """Return a nested table from names `section__key`, without those that are None (options not given)."""
    table: Table = {}
    for name, value in dotted.items():
        if value is not None:
            section, _, key = name.partition("__")
            table.setdefault(section, {})[key] = value
    return table
