"""Tables of numbers in files beside a scan: text, `.npy`, `.npz`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.kept_array import ARRAY_ERRORS

MAXIMUM_TEXT_BYTES = 2**28


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns."""

    where: str
    values: npt.NDArray[np.float64]
    """(rows, columns)."""
    names: tuple[str, ...] = ()
    """Of the columns, where the file has them."""

    def column(self, which: int | str) -> npt.NDArray[np.float64]:
        """Return a column by number, from 0, or by name. Raises `UserError` if there is no such column."""
        if isinstance(which, str) and which in self.names:
            return self.values[:, self.names.index(which)]
        if isinstance(which, int) and which < self.values.shape[1]:
            return self.values[:, which]
        there = ", ".join(self.names) or "they have no names"
        raise UserError(
            f"{self.where}: there is no column {which!r}; "
            f"it has {self.values.shape[1]} columns, counted from 0 ({there})"
        )


def read_table(path: Path, name: str | None = None) -> Table:
    """Read a table: `.npy`, the array `name` of an `.npz` file, or text.

    Raises:
        UserError: the file is missing, or is no table of numbers.
    """
    if path.suffix in {".npy", ".npz"}:
        return _as_table(_load(path, name), where=str(path))
    return _read_text(path)


def _load(path: Path, name: str | None) -> npt.NDArray[np.generic]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            if name is None or name not in content:
                held = ", ".join(content.files)
                raise UserError(f"{path}: say which array holds the positions, as path; there are {held}")
            return np.asarray(content[name])
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: this cannot be read as NumPy arrays: {error}") from error


def _as_table(values: npt.NDArray[np.generic], *, where: str) -> Table:
    if values.dtype.kind not in "iuf" or values.ndim not in {1, 2, 3}:
        raise UserError(f"{where}: a table of numbers was expected, not {values.dtype} of shape {values.shape}")
    numbers = values.astype(np.float64)
    return Table(where, numbers.reshape(-1, numbers.shape[-1]) if numbers.ndim > 1 else numbers[:, np.newaxis])


def _read_text(path: Path) -> Table:
    """Read rows of numbers; a line without numbers before them may name the columns."""
    try:
        if path.stat().st_size > MAXIMUM_TEXT_BYTES:
            raise UserError(f"{path}: a text file of positions this large is not read; save it as .npy")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read: {error.strerror}") from error
    names: tuple[str, ...] = ()
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        words = [word for word in re.split(r"[,;\s]+", line.strip().lstrip("#").strip()) if word]
        comment = line.lstrip().startswith(("#", "%"))
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if row and not comment:
            if rows and len(row) != len(rows[0]):
                raise UserError(f"{path}: line {number} has {len(row)} columns, those before it {len(rows[0])}")
            rows.append(row)
        elif words and not rows:
            names = tuple(words)
        elif words and not comment:
            raise UserError(f"{path}: line {number} holds no numbers: {line.strip()[:40]!r}")
    if not rows:
        raise UserError(f"{path}: there are no rows of numbers in it")
    return Table(str(path), np.array(rows), names if len(names) == len(rows[0]) else ())
