"""The example in the README works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_digits_example_shows_what_rehearsal_is_for() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits.py")],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    without, with_buffer = (float(score) for score in re.findall(r"([\d.]+)%", output))
    assert without < 30
    assert with_buffer > 80
