"""The live sources: what drains each of them, and what understands it."""

from __future__ import annotations

from ptychoflow.acquisition.detectors.dectris_v1.connection import DectrisV1Connection
from ptychoflow.acquisition.detectors.dectris_v1.decoder import DectrisV1Decoder
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings
from ptychoflow.acquisition.detectors.dectris_v2.connection import DectrisV2Connection
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings
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


def make_connection(settings: LiveSourceSettings) -> Connection:
    """Return what drains a source; it connects when it is told to.

    Raises:
        UserError: a library that it needs is not installed.
    """
    match settings:
        case DectrisV1Settings():
            return DectrisV1Connection(settings)
        case DectrisV2Settings():
            return DectrisV2Connection(settings)
        case PandaSettings():
            return PandaConnection(settings)
        case PositionSenderSettings():
            return PositionSenderConnection(settings)
        case PositionTableSettings():
            return PositionTableConnection(settings)
        case NtndarraySettings():
            return NtndarrayConnection(settings)


def make_decoder(settings: LiveSourceSettings) -> Decoder:
    """Return what understands a source.

    Raises:
        UserError: a library that it needs is not installed.
    """
    match settings:
        case DectrisV1Settings():
            return DectrisV1Decoder(settings)
        case DectrisV2Settings():
            return DectrisV2Decoder(settings)
        case PandaSettings():
            return PandaDecoder(settings)
        case PositionSenderSettings():
            return PositionSenderDecoder(settings)
        case PositionTableSettings():
            return PositionTableDecoder(settings)
        case NtndarraySettings():
            return NtndarrayDecoder(settings)
