"""What speaks like each live source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v1.simulator import DectrisV1Simulator
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v2.simulator import DectrisV2Simulator
from ptychoflow.acquisition.detectors.interface import Simulator
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySimulatorSettings
from ptychoflow.acquisition.detectors.ntndarray.simulator import NtndarraySimulator
from ptychoflow.acquisition.detectors.panda.settings import PandaSimulatorSettings
from ptychoflow.acquisition.detectors.panda.simulator import PandaSimulator
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSimulatorSettings
from ptychoflow.acquisition.detectors.position_sender.simulator import PositionSenderSimulator

SimulatorSettings = Annotated[
    DectrisV1SimulatorSettings
    | DectrisV2SimulatorSettings
    | NtndarraySimulatorSettings
    | PandaSimulatorSettings
    | PositionSenderSimulatorSettings,
    Field(discriminator="kind"),
]


def make_simulator(settings: SimulatorSettings) -> Simulator:
    """Return what speaks like a source; it listens from now on.

    Raises:
        UserError: it cannot listen there, or a library that it needs is not installed.
    """
    match settings:
        case DectrisV1SimulatorSettings():
            return DectrisV1Simulator(settings)
        case DectrisV2SimulatorSettings():
            return DectrisV2Simulator(settings)
        case PandaSimulatorSettings():
            return PandaSimulator(settings)
        case PositionSenderSimulatorSettings():
            return PositionSenderSimulator(settings)
        case NtndarraySimulatorSettings():
            return NtndarraySimulator(settings)
