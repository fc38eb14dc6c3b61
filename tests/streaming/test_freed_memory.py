"""Memory that is freed stays with a process that wants it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.settings import LearningSettings
if sys.argv[1] == "keep":
    keep_freed_memory()
if sys.argv[1] == "rank":
    with join_ranks(LearningSettings()):
        pass
for _ in range(50):
    if _ == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batches = [np.ones(1 << 19, np.uint8) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def test_batches_come_into_memory_that_others_have_left() -> None:
    assert page_faults("keep") < 100 < page_faults("leave")


def test_a_rank_keeps_what_a_step_frees() -> None:
    assert page_faults("rank") < 100
