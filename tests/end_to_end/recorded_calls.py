"""What a recorded run did with its disk and what it said, and whether the one came before the other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDER = Path(__file__).parent / "recorder"


def recorded_in(file: Path) -> dict[str, str]:
    """Return the environment in which a run is recorded in a file."""
    return {**os.environ, "RECORDED": str(file), "PYTHONPATH": f"{RECORDER}:{os.environ.get('PYTHONPATH', '')}"}


@dataclass(frozen=True)
class Call:
    """One line of the recording."""

    ns: int
    what: str
    path: str = ""
    to: str = ""
    begun_ns: int = 0
    kind: str = ""
    facts: Any = None


class RecordedCalls:
    """A recording.

    Args:
        file: as the recorder wrote it.
    """

    def __init__(self, file: Path) -> None:
        self._calls = sorted(map(_call, file.read_text().splitlines()), key=lambda call: call.begun_ns or call.ns)

    def said(self, kind: str) -> Iterator[Call]:
        """Yield when messages or events of a kind were said."""
        return (call for call in self._calls if call.what == "said" and call.kind == kind)

    def renamed_to(self, name: str) -> Iterator[str]:
        """Yield the paths in which `name` occurs that something was renamed to, in order."""
        return (call.to for call in self._calls if call.what == "rename" and name in call.to)

    def durable_at(self, path: Path | str) -> int | None:
        """Return since when a file is on the disk with all its content, under this name; None if it never was.

        A name counts once its folder was synchronised after the file got it, also if it was the folder that got it;
        the content, if the file was synchronised before it got its name.
        """
        name, since_ns = str(path), 0
        named_ns: int | None = None
        for index in range(len(self._calls) - 1, -1, -1):
            call = self._calls[index]
            if call.what == "rename" and (name == call.to or name.startswith(call.to + "/")):
                if (flushed_ns := self._synced(call.to.rpartition("/")[0], after_ns=call.begun_ns)) is None:
                    return None
                since_ns, named_ns = max(since_ns, flushed_ns), call.begun_ns
                name = call.path + name.removeprefix(call.to)
            elif call.what == "sync" and call.path == name and (named_ns is None or call.ns <= named_ns):
                return max(since_ns, call.ns) if named_ns is not None else None
        return None

    def _synced(self, path: str, *, after_ns: int) -> int | None:
        """Return when a folder was first synchronised after a time, whatever it was called by then."""
        for call in self._calls:
            if call.ns < after_ns:
                continue
            if call.what == "sync" and call.path == path:
                return call.ns
            if call.what == "rename" and (path == call.path or path.startswith(call.path + "/")):
                path = call.to + path.removeprefix(call.path)
        return None


def _call(line: str) -> Call:
    facts = json.loads(line)
    known = {key: facts.pop(key) for key in ("ns", "what", "path", "to", "begun_ns", "kind") if key in facts}
    return Call(**known, facts=facts)
