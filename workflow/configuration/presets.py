"""The configurations that come with the project, one TOML file each."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.layers import Layer, read_layer

log = logging.getLogger(__name__)

PRESET_FOLDER = Path(__file__).with_name("presets")
DATA_VARIABLE = "PTYCHOFLOW_DATA"
MEASURED_SCAN = "siemens_star.cxi"
DEMO, MEASURED_DEMO, SIMULATED_DEMO = "demo", "demo-measured", "demo-simulated"


def preset_names() -> list[str]:
    """Return every name that `--preset` takes."""
    return sorted([DEMO, *(path.stem for path in PRESET_FOLDER.glob("*.toml"))])


def read_preset(name: str, *, later: Sequence[Layer] = ()) -> Layer:
    """Read a preset. `demo` is the measured scan where the data folder holds one and the simulated scan otherwise.

    Args:
        name: of the preset.
        later: what replaces keys of the preset; if a source is among them, the preset's own is not looked for.

    Raises:
        UserError: there is no such preset, or `demo-measured` finds no measured scan and `later` names no other.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r}; the presets are {', '.join(preset_names())}")
    chosen = _choose_demo() if name == DEMO else name
    layer = read_layer(PRESET_FOLDER / f"{chosen}.toml", origin=f"preset {chosen}")
    if chosen == MEASURED_DEMO and not any(map(_names_source, later)):
        layer.values["source"]["path"] = str(_measured_scan_or_error())
    return layer


def _names_source(layer: Layer) -> bool:
    source = layer.values.get("source")
    return isinstance(source, dict) and ("path" in source or source.get("kind", "replay") != "replay")


def _choose_demo() -> str:
    scan = _measured_scan()
    if scan is None:
        log.info("demo: no measured scan (%s names no folder with %s), simulating one", DATA_VARIABLE, MEASURED_SCAN)
        return SIMULATED_DEMO
    log.info("demo: replaying the measured scan %s", scan)
    return MEASURED_DEMO


def _measured_scan_or_error() -> Path:
    scan = _measured_scan()
    if scan is None:
        raise UserError(
            f"preset {MEASURED_DEMO} needs {MEASURED_SCAN}: set {DATA_VARIABLE} to the folder that holds it, "
            f"or use --preset {SIMULATED_DEMO}"
        )
    return scan


def _measured_scan() -> Path | None:
    folder = os.environ.get(DATA_VARIABLE)
    scan = Path(folder) / MEASURED_SCAN if folder else None
    return scan if scan is not None and scan.is_file() else None
