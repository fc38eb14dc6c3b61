"""Sections of the check for a GPU that go wrong."""

from __future__ import annotations

import os
import threading
import time

from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup, Unmet


def hangs(_setup: Setup) -> Figures:
    time.sleep(60.0)
    raise AssertionError


def dies(_setup: Setup) -> Figures:
    os._exit(3)


def finds_something(_setup: Setup) -> Figures:
    raise Unmet("it is wrong", {"off": 2.0})


def breaks(_setup: Setup) -> Figures:
    raise RuntimeError("device-side assert")


def dies_later(_setup: Setup) -> Figures:
    threading.Timer(1.0, os._exit, (3,)).start()
    return {}
