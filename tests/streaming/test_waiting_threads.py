"""How OpenMP's threads wait, unless the user has said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ptychoflow.streaming.waiting_threads import POLICY, SPINS, waiting_threads


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({}, {POLICY: "PASSIVE", SPINS: "1000"}),
        ({POLICY: "passive"}, {POLICY: "passive", SPINS: "1000"}),
        ({SPINS: "0"}, {POLICY: "PASSIVE", SPINS: "0"}),
        ({POLICY: "ACTIVE"}, {POLICY: "ACTIVE"}),
    ],
)
def test_what_a_user_says_counts(said: dict[str, str], chosen: dict[str, str]) -> None:
    assert waiting_threads(said) == chosen


def test_the_threads_of_a_command_wait_so() -> None:
    own = {name: value for name, value in os.environ.items() if name not in (POLICY, SPINS)}
    ended = subprocess.run(
        [sys.executable, "-m", "ptychoflow", "doctor"],
        env=own | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "GOMP_SPINCOUNT = '1000'" in ended.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in ended.stderr
