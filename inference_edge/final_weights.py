"""The final weights on the edge's disk: the trainer leaves once edges have them, and an edge may start again."""

from __future__ import annotations

import logging

import msgspec

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.messages import Weights
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)


class FinalWeights:
    """One file in the run's folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.final_weights
        self._decoder = msgspec.msgpack.Decoder(tuple[Weights, bytes])

    def read(self) -> tuple[Weights, bytes] | None:
        """Return what was announced of the weights, and their file; None if none are kept, or they cannot be read."""
        try:
            return self._decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, *UNREADABLE) as error:
            log.warning("cannot read %s, the trainer is asked instead: %s", self._path, error)
            return None

    def write(self, announced: Weights, data: bytes) -> None:
        """Keep weights; a full disk is told of in the log, and changes nothing else."""
        try:
            write_durably(self._path, msgspec.msgpack.encode((announced, data)))
        except OSError as error:
            log.warning("cannot keep the final weights at %s: %s", self._path, error.strerror)
