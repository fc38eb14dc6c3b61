"""How the ranks of one start find each other in a store that outlives starts.

torchrun keeps one store over restarts. In it, new ranks would find what those wrote that are gone; and how often ranks
were started, each host counts for itself, so that does not tell starts apart. So rank 0 gives each start a random name.
The others ask for it with a random word of their own, which no answer to an earlier start can hold.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

MEETING_VARIABLE = "PTYCHOFLOW_MEETING_FILE"
"""Names the file through which ranks of one host meet; torchrun's own store listens on every interface."""
POLL_S = 0.05
DONE = "meeting/done"
PATIENCE_S = 900.0
"""Ranks on other hosts may start minutes later."""


def agree_on_start(store: Store, *, rank: int, world_size: int, patience_s: float = PATIENCE_S) -> str:
    """Return a name that all ranks of this start have in common, and no other start has.

    Blocks until all ranks have come, for `patience_s` at most.

    Raises:
        TimeoutError: some rank did not come.
    """
    deadline_s = time.monotonic() + patience_s
    return _name(store, world_size, deadline_s) if rank == 0 else _ask(store, rank, deadline_s)


def note_done(store: Store) -> None:
    """Note that there is nothing more to do for any start."""
    store.set(DONE, "")


def is_done(store: Store) -> bool:
    """Whether the ranks of a start before had noted that there is nothing more to do."""
    return bool(store.check([DONE]))


def _name(store: Store, world_size: int, deadline_s: float) -> str:
    """Name the start, and tell whoever asks until all have heard it."""
    name = secrets.token_hex(8)
    missing = set(range(1, world_size))

    def all_heard() -> bool:
        for rank in sorted(missing):
            if store.check([_heard(name, rank)]):
                missing.discard(rank)
            elif store.check([_asks(rank)]):
                # What it says may be of an earlier start, so it is read again until an answer was heard.
                store.set(_answer(rank, store.get(_asks(rank)).decode()), name)
        return not missing

    _wait_until(all_heard, deadline_s, lambda: f"ranks {sorted(missing)} did not come")
    return name


def _ask(store: Store, rank: int, deadline_s: float) -> str:
    """Ask for the name of the start."""
    word = secrets.token_hex(8)
    store.set(_asks(rank), word)
    _wait_until(lambda: store.check([_answer(rank, word)]), deadline_s, lambda: "rank 0 did not come")
    name = store.get(_answer(rank, word)).decode()
    store.set(_heard(name, rank), "")
    return name


def _wait_until(condition: Callable[[], bool], deadline_s: float, missing: Callable[[], str]) -> None:
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(missing())
        time.sleep(POLL_S)


def _asks(rank: int) -> str:
    return f"meeting/asks/{rank}"


def _answer(rank: int, word: str) -> str:
    return f"meeting/answer/{rank}/{word}"


def _heard(name: str, rank: int) -> str:
    return f"meeting/heard/{name}/{rank}"
