"""Damages scan files by the thousand and has `ptychoflow inspect` look at each of them.

    python tests/acquisition/mutated_files.py --count 100000 --seed 1

Each file must be answered, or refused in one line, within bounds of time and memory. Counts and the numbers of files
that fail are kept in the folder `--work`, so that the same command goes on where it was ended. Every file is made from
the seed and its number alone; `--only NUMBER` shows what is said of one. Exit status 1 if any fails.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from damage import KINDS, Settings, damage, write_scan

from ptychoflow.acquisition.inspect import inspect_scan
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow import contained
from ptychoflow.workflow.commands.inspect import inspect
from ptychoflow.workflow.commands.unknown_layout import describe_unknown

COMPUTING_LIMIT_S = 10
"""After which the command ends a library that computes without end: these files are small."""
TIME_LIMIT_S = 300.0
"""Within which it must have done so, on a busy host too."""
MEMORY_LIMIT_BYTES = 2 * 2**30
"""Beyond what the process has before the first file."""
FILES_PER_PROCESS = 500
COUNTS_PERIOD_S = 1.0
IN_MEMORY = Path("/dev/shm")
"""Where files are made, if it is there: on a disk, making them takes longer than looking at them."""
PROGRESS_PERIOD_S = 10.0


class Outcome(StrEnum):
    """What became of a file."""

    ANSWERED = "answered"
    REFUSED = "refused in one line"
    STOPPED = "refused as a library computed without end"
    TRACEBACK = "traceback"
    HANG = "hang"
    MEMORY = "memory"
    CRASH = "crash"


IMPORTED = (inspect_scan, open_scan, describe_unknown)
"""What the command imports in the process that it starts for each file: imported here once, for ten times the speed."""
GOOD = (Outcome.ANSWERED, Outcome.REFUSED, Outcome.STOPPED)


def try_inspect(path: Path, settings: Settings) -> tuple[Outcome, str]:
    """Have the command look at a scan; return what came of it, and what was said."""
    assignments = [f"{key}={json.dumps(value)}" for key, value in _dotted("source", settings)]
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inspect([path], assignments=assignments)
    except UserError as refusal:
        text = str(refusal)
        if "\n" in text:
            return Outcome.TRACEBACK, f"more than one line: {text}"
        return (Outcome.STOPPED if "of computing; " in text else Outcome.REFUSED), text
    except MemoryError:
        return Outcome.MEMORY, traceback.format_exc()
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
        return Outcome.TRACEBACK, traceback.format_exc()
    return Outcome.ANSWERED, ""


def _dotted(prefix: str, table: Settings) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value


class Mutations:
    """Damaged scans in a folder, each made from the seed and its number."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._originals = {}
        for kind in KINDS:
            path, settings = write_scan(kind, folder / "whole" / kind)
            contents = {one: one.read_bytes() for one in sorted(path.parent.iterdir())}
            self._originals[kind] = path, settings, contents
        self._place = folder / "damaged"

    def write(self, number: int) -> tuple[Path, Settings, str]:
        """Write a damaged scan; return its file, its settings, and what it is."""
        chance = random.Random(f"{self._seed}:{number}")
        kind = chance.choice(sorted(self._originals))
        path, settings, contents = self._originals[kind]
        self._place.mkdir(exist_ok=True)
        for left in self._place.iterdir():
            left.unlink()
        for original, content in contents.items():
            (self._place / original.name).write_bytes(content)
        victim = chance.choice(sorted(one.name for one in contents))
        how = damage(self._place / victim, chance)
        return self._place / path.name, settings, f"{kind}, {victim}: {how}"


class Process:
    """A process of its own that looks at one file after the other, and says of each what became of it."""

    def __init__(self, mutations: Mutations, first: int, end: int) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            gc.freeze()  # what was made and dropped before is not this process's to end
            try:
                _look_at_all(mutations, range(first, end), writing)
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(1)
        os.close(writing)
        self._pipe, self._received = reading, b""

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next answer; None if none came in time or the process is gone."""
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._pipe], [], [], max(deadline_s - time.monotonic(), 0.0))
            part = os.read(self._pipe, 2**16) if ready else b""
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def end(self) -> Outcome:
        """End the process; return what it says that it had not ended by itself."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            time.sleep(0.2)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._pipe)
        return Outcome.CRASH if ended and status else Outcome.HANG


def _look_at_all(mutations: Mutations, numbers: range, writing: int) -> None:
    """Look at files and exit."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_LIMIT_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()
    contained.COMPUTING_LIMIT_S = COMPUTING_LIMIT_S
    with os.fdopen(writing, "wb", buffering=0) as answers:
        for number in numbers:
            path, settings, what = mutations.write(number)
            outcome, said = try_inspect(path, settings)
            answers.write(
                json.dumps({"number": number, "outcome": outcome, "what": what, "said": said}).encode() + b"\n"
            )
    os._exit(0)


def look_at(mutations: Mutations, first: int, end: int) -> Iterator[tuple[int, Outcome, str, str]]:
    """Yield number, outcome, what the file is and what was said of it, one file after the other."""
    number = first
    while number < end:
        stop = min(number + FILES_PER_PROCESS, end)
        process = Process(mutations, number, stop)
        while number < stop:
            answer = process.next(TIME_LIMIT_S)
            if answer is None:
                outcome = process.end()
                yield number, outcome, f"see --only {number}", ""
                number += 1
                break
            yield number, Outcome(answer["outcome"]), answer["what"], answer["said"]
            number += 1
        else:
            process.end()


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="files in all, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of counts and of files that failed")
    parser.add_argument(
        "--only", type=int, help="look at this file alone and show what is said of it", metavar="NUMBER"
    )
    options = parser.parse_args()
    work: Path = options.work or Path(tempfile.gettempdir()) / f"mutated-files-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as scratch:
        mutations = Mutations(Path(scratch), options.seed)
        if options.only is not None:
            path, settings, what = mutations.write(options.only)
            print(what, *try_inspect(path, settings), sep="\n")
            return 0
        return _run(mutations, options.count, work)


def _run(mutations: Mutations, count: int, work: Path) -> int:
    counts_file, failures = work / "counts.json", work / "failures.jsonl"
    counts: Counter[str] = Counter(json.loads(counts_file.read_text()) if counts_file.exists() else {})
    first = counts.total()
    began_s = saved_s = shown_s = time.monotonic()
    for number, outcome, what, said in look_at(mutations, first, count):
        counts[outcome] += 1
        if outcome not in GOOD:
            with failures.open("a") as lines:
                lines.write(json.dumps({"number": number, "outcome": outcome, "what": what, "said": said}) + "\n")
        now_s, last = time.monotonic(), number + 1 == count
        if last or outcome not in GOOD or now_s - saved_s > COUNTS_PERIOD_S:
            saved_s = now_s
            unfinished = counts_file.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(counts))
            unfinished.replace(counts_file)
        if last or now_s - shown_s > PROGRESS_PERIOD_S:
            shown_s = now_s
            rate_hz = (number + 1 - first) / (now_s - began_s)
            left_min = (count - number - 1) / rate_hz / 60
            print(
                f"{number + 1} of {count}, {rate_hz:.1f} files/s, {left_min:.0f} min left: {_words(counts)}", flush=True
            )
    print(f"{_words(counts)}; files that failed: {failures if failures.exists() else 'none'}")
    return 0 if all(not counts[one] for one in Outcome if one not in GOOD) else 1


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[one]} {one}" for one in Outcome)


if __name__ == "__main__":
    sys.exit(main())
