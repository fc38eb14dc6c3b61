"""The final weights on disk: the trainer leaves once edges have them, and an edge may start again, or miss them."""

from __future__ import annotations

import logging

import msgspec

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.messages import Weights
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.models.tensor_file import BadWeights, digest, read_stamp

log = logging.getLogger(__name__)


class FinalWeights:
    """One file in the run's folder, beside those that the trainer has published, where both see the same folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.final_weights
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

    def published(self, newer_than: int) -> tuple[Weights, bytes] | None:
        """Return the newest weights that the trainer has published if they are its final ones, as if it sent them.

        None also if they are not newer than this version, if training was stopped with them and may go on, or if they
        cannot be read.
        """
        version, path = max(self._folder.weights_by_version().items(), default=(-1, self._path))
        if version <= newer_than:
            return None
        try:
            data = path.read_bytes()
            stamp = read_stamp(data)
        except (OSError, BadWeights) as error:
            log.warning("cannot read %s: %s", path, error)
            return None
        if not stamp.final or stamp.stopped:
            return None
        log.info("the trainer is away: its final weights are those in %s", path)
        return Weights(stamp.version, digest(data), stamp.step, final=True), data

    def write(self, announced: Weights, data: bytes) -> None:
        """Keep weights; a full disk is told of in the log, and changes nothing else."""
        try:
            write_durably(self._path, msgspec.msgpack.encode((announced, data)))
        except OSError as error:
            log.warning("cannot keep the final weights at %s: %s", self._path, error.strerror)
