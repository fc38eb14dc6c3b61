"""torchrun for ranks that are all on this host, without the store that it opens on every interface.

Usage: python -m ptychoflow.workflow.launching.local_torchrun OPTIONS OF TORCHRUN

Who reaches torchrun's own store can read and change what is in it. Here the ranks meet in a file that only this user
can open, and torchrun, which is alone, needs nothing but memory.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.trainer.meeting import MEETING_VARIABLE
from ptychoflow.workflow.launching import orderly_torchrun
from ptychoflow.workflow.launching.torchrun import SCRATCH_VARIABLE

BACKEND = "one-host"
LOOPBACK = "127.0.0.1"


class OneHost(RendezvousHandler):
    """The meeting of a torchrun that is alone: over as soon as it begins, every time that ranks are started.

    Args:
        params: of torchrun.
        folder: gets a file for each start, in which ranks meet: one that was killed may have left half a record.
    """

    def __init__(self, params: RendezvousParameters, *, folder: Path) -> None:
        self._run_id = params.run_id
        self._folder = folder
        self._starts = 0

    def get_backend(self) -> str:
        """Return the name under which this is registered."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Return a new store, that this is node 0 of 1, and an address at which nobody listens."""
        self._starts += 1
        os.environ[MEETING_VARIABLE] = str(self._folder / f"meeting-{os.getpid()}-{self._starts}")
        store = dist.HashStore()  # type: ignore[attr-defined]
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOOPBACK, 0))

    def is_closed(self) -> bool:
        """Return False: ranks may be started again."""
        return False

    def set_closed(self) -> None:
        """Do nothing: there is nobody to tell."""

    def num_nodes_waiting(self) -> int:
        """Return 0: nobody else comes."""
        return 0

    def get_run_id(self) -> str:
        """Return what torchrun calls this run."""
        return self._run_id

    def shutdown(self) -> bool:
        """Return that nothing is left open."""
        return True


def main(arguments: list[str]) -> None:
    """Run torchrun until the ranks have ended."""
    given = os.environ.get(SCRATCH_VARIABLE)
    with private_folder() if given is None else nullcontext(Path(given)) as folder:
        rendezvous_handler_registry.register(BACKEND, partial(OneHost, folder=folder))
        own = (f"--rdzv-backend={BACKEND}", f"--rdzv-endpoint={LOOPBACK}", f"--local-addr={LOOPBACK}")
        orderly_torchrun.main([*own, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
