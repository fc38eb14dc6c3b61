"""Resolves the configuration of an experiment: a preset, over it a file, over it assignments and options."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.workflow.configuration.errors import explain
from ptychoflow.workflow.configuration.layers import Layer, Table, merge, parse_assignments, read_layer

PRESETS = Path(__file__).with_name("presets")
SettingsT = TypeVar("SettingsT", bound=Settings)


def preset_names(experiment: str) -> list[str]:
    """Return the names of an experiment's presets."""
    return sorted(path.stem.removeprefix(f"{experiment}-") for path in PRESETS.glob(f"{experiment}-*.toml"))


def load_experiment(
    model: type[SettingsT],
    experiment: str,
    *,
    preset: str,
    file: Path | None,
    assignments: Iterable[str],
    options: Table,
) -> SettingsT:
    """Return the settings of an experiment, of the class `model`.

    Raises:
        UserError: one line that names every wrong key, where it was set, and the nearest valid one.
    """
    if preset not in preset_names(experiment):
        raise UserError(f"unknown preset {preset!r}; the presets are {', '.join(preset_names(experiment))}")
    layers = [read_layer(PRESETS / f"{experiment}-{preset}.toml", origin=f"preset {preset}")]
    layers += [read_layer(file)] if file is not None else []
    layers += [parse_assignments(assignments), Layer("the command line", options)]
    values, origins = merge(layers)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model=model, values=values, origins=origins) from None
