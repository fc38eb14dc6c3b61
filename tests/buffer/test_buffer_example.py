"""The examples work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def scores_of(example: str) -> list[float]:
    """The percentages that an example prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    return [float(score) for score in re.findall(r"([\d.]+)%", output)]


def test_the_digits_example_shows_what_rehearsal_is_for() -> None:
    without, with_buffer = scores_of("digits.py")
    assert without < 30
    assert with_buffer > 80


def test_a_loader_does_the_same_for_a_loop_that_knows_nothing_of_it() -> None:
    (with_buffer,) = scores_of("digits_loader.py")
    assert with_buffer > 80
