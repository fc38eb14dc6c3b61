"""What an acquisition has done of a run, kept on disk until the run has ended well.

A run that is resumed reads its source again from the beginning, but computes no ground truth twice: phase retrieval is
slow, and gives patches that differ a little every time, which must not be mixed with those already learned from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult
from ptychoflow.acquisition.retrieval.worker_messages import (
    ADVICE,
    DoneMessage,
    FailedMessage,
    read_ground_truth,
    write_ground_truth,
)
from ptychoflow.streaming.durable_file import (
    UNFINISHED_SUFFIX,
    make_folder_durably,
    move_durably,
    write_durably,
)
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.kept_struct import read_kept

FOLDER = "outcomes"
"""In the run's spool."""
OUTCOME = "outcome.json"
SCAN = "scan.json"
ACQUIRED_SUFFIX = ".acquired"


class SkippedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="skipped"):
    """The regime spared this perspective the phase retrieval."""

    perspective: int


Entry = DoneMessage | FailedMessage | SkippedEntry
"""What became of a perspective's ground truth."""


class Journal:
    """Which perspectives were acquired, and their ground truth; what is written appears only when it is whole.

    Args:
        directory: made if need be; an earlier process of the same run may have written there.
        scan: says, as text, everything that the entries depend on.

    Raises:
        UserError: the folder holds entries of another scan or data set, or cannot be written.
    """

    def __init__(self, directory: Path, *, scan: str) -> None:
        self._directory = directory
        with writing(directory):
            make_folder_durably(directory)
            for unfinished in directory.glob(f"*{UNFINISHED_SUFFIX}/"):
                shutil.rmtree(unfinished)
            self._claim(directory / SCAN, scan)

    def mark_acquired(self, perspective: int) -> None:
        """Keep that all frames of a perspective have been acquired."""
        write_durably(self._folder(perspective).with_suffix(ACQUIRED_SUFFIX), b"")

    def was_acquired(self, perspective: int) -> bool:
        """Whether all frames of a perspective had been acquired before."""
        return self._folder(perspective).with_suffix(ACQUIRED_SUFFIX).exists()

    @property
    def acquired(self) -> int:
        """How many perspectives had been acquired as a whole before."""
        return sum(1 for _ in self._directory.glob(f"*{ACQUIRED_SUFFIX}"))

    def record_result(self, result: GroundTruthResult) -> None:
        """Keep a result, unless another try may give a better one; blocks for the disk.

        Raises:
            OSError: the disk does not take it.
        """
        if result.worker_lost:
            return
        truth, unfinished = result.ground_truth, self._begin(result.perspective)
        if truth is None:
            self._finish(FailedMessage(result.perspective, result.error or ""), unfinished)
        else:
            self._finish(write_ground_truth(truth, result.perspective, unfinished), unfinished)

    def mark_skipped(self, perspective: int) -> None:
        """Keep that a perspective does without ground truth; once is enough."""
        if not self.is_skipped(perspective):
            self._finish(SkippedEntry(perspective), self._begin(perspective))

    def is_skipped(self, perspective: int) -> bool:
        """Whether it is known that the perspective does without ground truth."""
        return isinstance(self._entry(perspective), SkippedEntry)

    def result(self, perspective: int) -> GroundTruthResult | None:
        """Return the result of a perspective's ground truth, or None if it is not known.

        Raises:
            UserError: what was kept of it is damaged.
        """
        entry = self._entry(perspective)
        if isinstance(entry, FailedMessage):
            return GroundTruthResult(perspective, None, entry.reason)
        if isinstance(entry, DoneMessage):
            return GroundTruthResult(perspective, self._read(entry, self._folder(perspective)), None)
        return None

    @staticmethod
    def _claim(path: Path, scan: str) -> None:
        if not path.exists():
            write_durably(path, scan)
        elif path.read_bytes() != scan.encode():
            raise UserError(
                f"{path.parent} tells of another scan, of other images, or of other settings; "
                "resume with the files and the configuration of that run, or choose another run.name"
            )

    def _folder(self, perspective: int) -> Path:
        return self._directory / f"{perspective:04d}"

    def _begin(self, perspective: int) -> Path:
        unfinished = self._folder(perspective).with_suffix(UNFINISHED_SUFFIX)
        unfinished.mkdir()
        return unfinished

    def _finish(self, entry: Entry, unfinished: Path) -> None:
        (unfinished / OUTCOME).write_bytes(msgspec.json.encode(entry))
        move_durably(unfinished, unfinished.with_suffix(""))

    def _entry(self, perspective: int) -> Entry | None:
        path = self._folder(perspective) / OUTCOME
        if not path.is_file():
            return None
        entry: Entry = read_kept(path, Entry, advice=ADVICE)
        return entry

    @staticmethod
    def _read(entry: DoneMessage, folder: Path) -> GroundTruth:
        try:
            return read_ground_truth(entry, folder)
        except OSError as error:
            raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}; {ADVICE}") from error
