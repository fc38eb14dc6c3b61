"""Weights on their way to the edge: written to the run's folder, then offered to whoever asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Self

from ptychoflow.streaming.durable_file import make_folder_durably, write_durably
from ptychoflow.streaming.events import WarningRaised, WeightsPublished
from ptychoflow.streaming.messages import Weights
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.weights_channel import LOADING_S, WeightsServer
from ptychoflow.trainer.models.tensor_file import Stamp, Writer, digest

log = logging.getLogger(__name__)

OnPublished = Callable[[WeightsPublished | WarningRaised], None]


class Publication:
    """Publishes versions from a thread of its own, so that serialisation does not hold up the loop. Rank 0 only.

    Args:
        network: hosts, ports and keys of the run; binds the weights port.
        folder: of the run, gets one file per version in `weights/`; versions go on from those that are there.
        run: the run's name, for the manifest.
        on_published: called in the publishing thread after each version, and with what a user should know of it.

    Raises:
        UserError: the port is in use.
    """

    def __init__(self, network: NetworkSettings, *, folder: RunFolder, run: str, on_published: OnPublished) -> None:
        make_folder_durably(folder.weights)
        self._server = WeightsServer(network)
        self._folder, self._run, self._on_published = folder, run, on_published
        # an edge ignores what is older than it has
        self._version = max(folder.weights_by_version(), default=0)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="publication")
        self._last: Future[None] | None = None

    def publish(
        self, write: Writer, *, step: int, validation_loss: float | None, final: bool, stopped: bool = False
    ) -> None:
        """Publish what `write` makes, in the publishing thread, of the version's stamp; waits for the version before.

        A version that cannot be written to the folder is published all the same, with a warning.
        """
        self._finish_last()
        self._version += 1
        stamp = Stamp(
            version=self._version,
            step=step,
            validation_loss=validation_loss,
            final=final,
            stopped=stopped,
            created_at=datetime.now(UTC),
            run=self._run,
        )
        self._last = self._executor.submit(self._write, write, stamp)

    def wait_until_served(self, timeout_s: float, stop: threading.Event) -> None:
        """Wait until every edge has the final version, for so long at most or until `stop` is set; warn if one has not.

        In a run that is resumed an edge may have had final weights before, and be gone already: it has kept them in the
        run's folder, and nobody is waited for who does not ask.

        Args:
            timeout_s: to wait at most.
            stop: ends the waiting.
        """
        self._finish_last()
        began_s = time.monotonic()
        kept = self._folder.final_weights.exists()
        served = self._server.wait_until_served(timeout_s, stop, loading_s=0.0 if kept else LOADING_S)
        if timeout_s == 0.0 or served or stop.is_set() or (kept and not self._server.unserved):
            return
        who = ", ".join(self._server.unserved) or "any edge"
        waited_s = time.monotonic() - began_s
        reason = (
            f"the final weights were not fetched by {who} within {waited_s:.0f} s; they are in "
            f"{self._folder.weights}, and `ptychoflow resume` serves them again"
        )
        log.warning("%s", reason)
        self._on_published(WarningRaised(reason))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the last version, and close the port."""
        try:
            self._finish_last()
        finally:
            self._executor.shutdown()
            self._server.close()

    def _finish_last(self) -> None:
        if self._last is not None:
            self._last.result()

    def _write(self, write: Writer, stamp: Stamp) -> None:
        data = write(stamp)
        sha256 = digest(data)
        try:
            write_durably(self._folder.weights_file(stamp.version), data)
        except OSError as error:
            reason = f"weights {stamp.version} are served but not kept: {self._folder.weights}: {error.strerror}"
            log.warning("%s", reason)
            self._on_published(WarningRaised(reason))
        self._server.publish(Weights(stamp.version, sha256, stamp.step, stamp.final, stamp.stopped), data)
        self._on_published(WeightsPublished(stamp.version, stamp.step, sha256, stamp.validation_loss, stamp.final))
