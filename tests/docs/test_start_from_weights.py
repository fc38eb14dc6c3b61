"""The page on starting from weights: its command takes those of the first tutorial, its settings those of PtychoNN."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from pages import DOCS, blocks

from ptychoflow.trainer.models.ptychonn import edge_model
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.workflow.configuration.config import load_config

PAGE = DOCS / "how-to" / "start-from-weights.md"


def network_of_run(page: Path) -> tuple[object, object]:
    """Return what fixes the network of the run that a page starts from `scan.h5`."""
    (line,) = (one.text for one in blocks(page) if one.runs and one.text.startswith("ptychoflow run scan.h5"))
    words = shlex.split(line)
    preset = words[words.index("--preset") + 1] if "--preset" in words else None
    config = load_config(preset, assignments=["source.kind=replay", "source.path=scan.h5"])
    return config.trainer.model, config.retrieval.target_shape_px


def test_the_command_makes_the_network_that_the_first_tutorial_has_taught() -> None:
    assert network_of_run(PAGE) == network_of_run(DOCS / "tutorials" / "first-run.md")


def test_the_settings_for_published_weights_are_those_of_their_model() -> None:
    (block,) = (one for one in blocks(PAGE) if one.language == "toml")
    assert ModelSettings.model_validate(tomllib.loads(block.text)["trainer"]["model"]) == edge_model()
