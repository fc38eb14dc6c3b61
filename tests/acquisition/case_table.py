"""Has `ptychoflow inspect` look at files of every format and with every known fault; prints what is said of each.

    python tests/acquisition/case_table.py
    python tests/acquisition/case_table.py --more path/to/make_cases.py

A table: the case, what must be said, what is said, and whether they agree. `--more` names a script that writes files of
an independent model into a folder; `MORE` knows them by their names. Exit status 1 if anything is silent, wrong, or a
traceback. `--only WORD` looks at the cases whose name holds a word, and shows all that is said of them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from case_files import CASES
from file_case import Case
from more_case_files import MORE
from rich.console import Console
from rich.table import Table

TIME_LIMIT_S = 120
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
WIDTH = 200


@dataclass(frozen=True)
class Said:
    """What the command made of a file."""

    status: int
    printed: str
    """Standard output, each run of white space one space."""
    error: str
    """Standard error without what is logged."""

    def fault(self, case: Case) -> str | None:
        """Return in what this is not what is expected; None if it is."""
        if "Traceback" in self.error + self.printed or self.status not in (0, 2):
            return f"status {self.status}: {self.error[-300:]}"
        if (self.status != 0) != case.refused:
            return "refused" if self.status else "not refused"
        if case.refused and (self.error.count("\n") > 1 or not self.error.startswith("ptychoflow: ")):
            return "not one line"
        missing = [word for word in case.words if word not in (self.error if case.refused else self.printed)]
        return f"not said: {'; '.join(missing)}" if missing else None

    @property
    def short(self) -> str:
        """The refusal; or the first lines of the description and the notes."""
        if self.status:
            return self.error.removeprefix("ptychoflow: ").strip()
        notes = [note.strip() for note in self.printed.split("Note: ")[1:]]
        frames = re.search(r"frames (.*?) photon energy", self.printed)
        return "; ".join([frames[1] if frames else "", *notes])


def inspect(paths: list[Path], options: tuple[str, ...]) -> Said:
    """Run the command as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "ptychoflow", "inspect", *map(str, paths), *options],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIME_LIMIT_S,
        env=os.environ | {"COLUMNS": "1000"},
        check=False,
    )
    return said(done.returncode, done.stdout, done.stderr)


def said(status: int, printed: str, error: str) -> Said:
    """Return what was said, without what was logged."""
    lines = [line for line in error.splitlines(keepends=True) if not LOG_LINE.match(line)]
    return Said(status, " ".join(printed.split()), "".join(lines))


def _written(folder: Path, more: Path | None) -> Iterator[tuple[Case, Callable[[], list[Path]]]]:
    for number, case in enumerate(CASES):
        place = folder / f"{number:02d}"
        place.mkdir()
        yield case, lambda case=case, place=place: case.write(place)
    if more is None:
        return
    place = folder / "more"
    subprocess.run([sys.executable, str(more), str(place)], check=True, stdout=subprocess.DEVNULL)
    for case in MORE:
        yield case, lambda case=case: case.write(place)


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--more", type=Path, help="script that writes more files", metavar="SCRIPT")
    parser.add_argument("--only", default="", help="cases whose name holds this", metavar="WORD")
    options = parser.parse_args()
    table = Table("no.", "case", "expected", "got", "ok", show_lines=True)
    counted = wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case, write in _written(Path(scratch), options.more):
            if options.only not in case.name:
                continue
            got = inspect(write(), case.options)
            fault = got.fault(case)
            counted += 1
            wrong += fault is not None
            expected = f"{'refused: ' if case.refused else ''}{'; '.join(case.words)}"
            text = got.short.replace(f"{scratch}/", "")
            table.add_row(str(counted), case.name, expected, text, "yes" if fault is None else f"NO: {fault}")
            print(f"{counted} {case.name}: {fault or 'ok'}", file=sys.stderr, flush=True)
            if options.only:
                print(got.printed, got.error, sep="\n", file=sys.stderr)
    Console(width=WIDTH, markup=False).print(table)
    print(f"{counted} cases, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
