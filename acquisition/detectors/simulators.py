"""What speaks like each live source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSimulatorSettings
from ptychoflow.acquisition.detectors.bluesky_documents.simulator import BlueskyDocumentsSimulator
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v1.simulator import DectrisV1Simulator
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v2.simulator import DectrisV2Simulator
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSimulatorSettings
from ptychoflow.acquisition.detectors.hdf5_swmr.simulator import Hdf5SwmrSimulator
from ptychoflow.acquisition.detectors.interface import Simulator
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySimulatorSettings
from ptychoflow.acquisition.detectors.ntndarray.simulator import NtndarraySimulator
from ptychoflow.acquisition.detectors.panda.settings import PandaSimulatorSettings
from ptychoflow.acquisition.detectors.panda.simulator import PandaSimulator
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSimulatorSettings
from ptychoflow.acquisition.detectors.position_sender.simulator import PositionSenderSimulator
from ptychoflow.acquisition.detectors.watched_folder.settings import WatchedFolderSimulatorSettings
from ptychoflow.acquisition.detectors.watched_folder.simulator import WatchedFolderSimulator

SimulatorSettings = Annotated[
    BlueskyDocumentsSimulatorSettings
    | DectrisV1SimulatorSettings
    | DectrisV2SimulatorSettings
    | Hdf5SwmrSimulatorSettings
    | NtndarraySimulatorSettings
    | PandaSimulatorSettings
    | PositionSenderSimulatorSettings
    | WatchedFolderSimulatorSettings,
    Field(discriminator="kind"),
]


_SIMULATORS: dict[type[SimulatorSettings], Callable[[Any], Simulator]] = {
    BlueskyDocumentsSimulatorSettings: BlueskyDocumentsSimulator,
    DectrisV1SimulatorSettings: DectrisV1Simulator,
    DectrisV2SimulatorSettings: DectrisV2Simulator,
    Hdf5SwmrSimulatorSettings: Hdf5SwmrSimulator,
    NtndarraySimulatorSettings: NtndarraySimulator,
    PandaSimulatorSettings: PandaSimulator,
    PositionSenderSimulatorSettings: PositionSenderSimulator,
    WatchedFolderSimulatorSettings: WatchedFolderSimulator,
}


def make_simulator(settings: SimulatorSettings) -> Simulator:
    """Return what speaks like a source; it listens, or writes, from now on.

    Raises:
        UserError: it cannot listen or write there, or a library that it needs is not installed.
    """
    return _SIMULATORS[type(settings)](settings)
