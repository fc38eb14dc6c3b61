"""The live sources: what drains each of them, and what understands it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptychoflow.acquisition.detectors.bluesky_documents.connection import BlueskyDocumentsConnection
from ptychoflow.acquisition.detectors.bluesky_documents.decoder import BlueskyDocumentsDecoder
from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSettings
from ptychoflow.acquisition.detectors.dectris_v1.connection import DectrisV1Connection
from ptychoflow.acquisition.detectors.dectris_v1.decoder import DectrisV1Decoder
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings
from ptychoflow.acquisition.detectors.dectris_v2.connection import DectrisV2Connection
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings
from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import Connection, Decoder
from ptychoflow.acquisition.detectors.ntndarray.connection import NtndarrayConnection
from ptychoflow.acquisition.detectors.ntndarray.decoder import NtndarrayDecoder
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySettings
from ptychoflow.acquisition.detectors.panda.connection import PandaConnection
from ptychoflow.acquisition.detectors.panda.decoder import PandaDecoder
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings
from ptychoflow.acquisition.detectors.position_sender.connection import PositionSenderConnection
from ptychoflow.acquisition.detectors.position_sender.decoder import PositionSenderDecoder
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSettings
from ptychoflow.acquisition.detectors.position_table.connection import PositionTableConnection
from ptychoflow.acquisition.detectors.position_table.decoder import PositionTableDecoder
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings
from ptychoflow.acquisition.detectors.settings import LiveSourceSettings
from ptychoflow.acquisition.detectors.watched_folder.connection import WatchedFolderConnection
from ptychoflow.acquisition.detectors.watched_folder.decoder import WatchedFolderDecoder
from ptychoflow.acquisition.detectors.watched_folder.settings import WatchedFolderSettings

_SOURCES: dict[type[LiveSourceSettings], tuple[Callable[[Any], Connection], Callable[[Any], Decoder]]] = {
    BlueskyDocumentsSettings: (BlueskyDocumentsConnection, BlueskyDocumentsDecoder),
    DectrisV1Settings: (DectrisV1Connection, DectrisV1Decoder),
    DectrisV2Settings: (DectrisV2Connection, DectrisV2Decoder),
    Hdf5SwmrSettings: (Hdf5SwmrConnection, Hdf5SwmrDecoder),
    NtndarraySettings: (NtndarrayConnection, NtndarrayDecoder),
    PandaSettings: (PandaConnection, PandaDecoder),
    PositionSenderSettings: (PositionSenderConnection, PositionSenderDecoder),
    PositionTableSettings: (PositionTableConnection, PositionTableDecoder),
    WatchedFolderSettings: (WatchedFolderConnection, WatchedFolderDecoder),
}


def make_connection(settings: LiveSourceSettings) -> Connection:
    """Return what drains a source; it connects when it is told to.

    Raises:
        UserError: a library that it needs is not installed.
    """
    connection, _ = _SOURCES[type(settings)]
    return connection(settings)


def make_decoder(settings: LiveSourceSettings) -> Decoder:
    """Return what understands a source.

    Raises:
        UserError: a library that it needs is not installed.
    """
    _, decoder = _SOURCES[type(settings)]
    return decoder(settings)
