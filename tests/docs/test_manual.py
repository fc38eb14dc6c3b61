"""The manual builds with nothing left open: every link, reference and generated page fits the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptychoflow.dashboard.command_routes import PlainCommand
from ptychoflow.dashboard.image_routes import ImageKind
from ptychoflow.streaming.events import Regime

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """The folder of the built manual."""
    folder = tmp_path_factory.mktemp("manual")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-b", "html", "-d", str(folder / "doctrees")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "html")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_the_manual_builds_with_nothing_left_open(manual):
    assert (manual / "index.html").is_file()


def test_the_configuration_is_described_key_by_key(manual):
    page = (manual / "reference" / "configuration.html").read_text()
    assert 'id="setting-trainer.batch_size"' in page
    assert "Samples of the stream per step and rank (b)." in page
    assert 'id="setting-trainer.buffer.representatives"' in page


def test_commands_and_regimes_are_named_where_the_manual_says_that_all_are(manual):
    page = (manual / "reference" / "rest.html").read_text()
    for name in (*PlainCommand, *Regime, *ImageKind):
        assert f">{name}<" in page, f"the reference does not tell of {name}"
