"""Every live source that settings can name has what drains it, what understands it, and perhaps what speaks like it."""

from typing import get_args

from ptychoflow.acquisition.detectors import simulators, sources
from ptychoflow.acquisition.detectors.settings import LiveSourceSettings
from ptychoflow.acquisition.detectors.simulators import SimulatorSettings


def test_no_source_is_forgotten() -> None:
    assert set(sources._SOURCES) == set(get_args(LiveSourceSettings))
    assert set(simulators._SIMULATORS) == set(get_args(get_args(SimulatorSettings)[0]))
