"""How many files of a data set may turn out not to be readable images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

NAMED = 3
"""Corrupt files that an error names."""


class CorruptFiles:
    """Counts files that cannot be read.

    Args:
        files: number of all files.
        share: so many of them may be corrupt.
        setting: what the user calls `share`.
        warn: told of each file; the log by default.
    """

    def __init__(self, files: int, *, share: float, setting: str, warn: Callable[[str], None] = log.warning) -> None:
        self.reasons: dict[int, str] = {}
        """Why a file could not be read, by its position."""
        self._files, self._share, self._setting, self._warn = files, share, setting, warn

    def note(self, reasons: Mapping[int, str]) -> None:
        """Take in and name those that are new.

        Raises:
            UserError: they have become too many.
        """
        for row, reason in reasons.items():
            if row not in self.reasons:
                self._warn(f"left out an image that cannot be read: {reason}")
        self.reasons |= reasons
        self._check()

    def _check(self) -> None:
        if len(self.reasons) > self._share * self._files:
            named = "; ".join(list(self.reasons.values())[:NAMED])
            raise UserError(
                f"{len(self.reasons)} of {self._files} images cannot be read, more than "
                f"{self._setting} = {self._share:g} allows: {named}"
            )
