"""What became of each perspective's ground truth, kept on disk until the run has ended well.

A run that is resumed reads its source again from the beginning, but computes no ground truth twice: phase retrieval is
slow, and gives patches that differ a little every time, which must not be mixed with those already learned from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from ptychoflow.acquisition.ground_truth import GroundTruth
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult
from ptychoflow.acquisition.retrieval.worker_messages import (
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
from ptychoflow.streaming.errors import UserError

OUTCOME = "outcome.json"
SCAN = "scan.json"
ACQUIRED_SUFFIX = ".acquired"


class SkippedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="skipped"):
    """The regime spared this perspective the phase retrieval."""

    perspective: int


Outcome = DoneMessage | FailedMessage | SkippedMessage


class Outcomes:
    """The outcomes that are known; one folder each in `directory`, which appears only when it is whole.

    Args:
        directory: made if need be; an earlier process of the same run may have left outcomes there.
        scan: says, as text, everything that the outcomes depend on.

    Raises:
        UserError: the folder holds outcomes of another scan, or cannot be written.
    """

    def __init__(self, directory: Path, *, scan: str) -> None:
        self._directory = directory
        try:
            make_folder_durably(directory)
            for unfinished in directory.glob(f"*{UNFINISHED_SUFFIX}/"):
                shutil.rmtree(unfinished)
            self._claim(directory / SCAN, scan)
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror}; check permission and disk space") from error

    def note_acquired(self, perspective: int) -> None:
        """Keep that all frames of a perspective have been acquired."""
        write_durably(self._folder(perspective).with_suffix(ACQUIRED_SUFFIX), b"")

    def was_acquired(self, perspective: int) -> bool:
        """Whether all frames of a perspective had been acquired before."""
        return self._folder(perspective).with_suffix(ACQUIRED_SUFFIX).exists()

    def keep(self, result: GroundTruthResult) -> None:
        """Keep a result; blocks for the disk. Raises OSError if that does not take it."""
        truth, unfinished = result.ground_truth, self._begin(result.perspective)
        if truth is None:
            self._finish(FailedMessage(result.perspective, result.error or ""), unfinished)
        else:
            self._finish(write_ground_truth(truth, result.perspective, unfinished), unfinished)

    def note_skipped(self, perspective: int) -> None:
        """Keep that a perspective does without ground truth; once is enough."""
        if not self.is_skipped(perspective):
            self._finish(SkippedMessage(perspective), self._begin(perspective))

    def is_skipped(self, perspective: int) -> bool:
        """Whether it is known that the perspective does without ground truth."""
        return isinstance(self._outcome(perspective), SkippedMessage)

    def result(self, perspective: int) -> GroundTruthResult | None:
        """Return the result of a perspective's ground truth, or None if it is not known."""
        outcome = self._outcome(perspective)
        if isinstance(outcome, FailedMessage):
            return GroundTruthResult(perspective, None, outcome.reason)
        if isinstance(outcome, DoneMessage):
            return GroundTruthResult(perspective, self._read(outcome), None)
        return None

    @staticmethod
    def _claim(path: Path, scan: str) -> None:
        if not path.exists():
            write_durably(path, scan)
        elif path.read_text(encoding="utf-8") != scan:
            raise UserError(
                f"{path.parent} holds ground truth of another scan, or found with other settings; "
                "resume with the configuration of that run, or choose another run.name"
            )

    def _folder(self, perspective: int) -> Path:
        return self._directory / f"{perspective:04d}"

    def _begin(self, perspective: int) -> Path:
        unfinished = self._folder(perspective).with_suffix(UNFINISHED_SUFFIX)
        unfinished.mkdir()
        return unfinished

    def _finish(self, outcome: Outcome, unfinished: Path) -> None:
        (unfinished / OUTCOME).write_bytes(msgspec.json.encode(outcome))
        move_durably(unfinished, unfinished.with_suffix(""))

    def _outcome(self, perspective: int) -> Outcome | None:
        path = self._folder(perspective) / OUTCOME
        return msgspec.json.decode(path.read_bytes(), type=Outcome) if path.is_file() else None

    def _read(self, outcome: DoneMessage) -> GroundTruth:
        return read_ground_truth(outcome, self._folder(outcome.perspective))
