"""Checkpoints of the trainer: which files they are, when one is complete, and which is the newest.

The data's way. A checkpoint is taken by all ranks after the same step. `rank-R.safetensors` holds what rank R alone
has: its shard of the rehearsal buffer, the ids of the frames it is done with, its counts, its part of the mean patch,
its batch-norm statistics and random state. `common.safetensors`, by rank 0, holds what all ranks share: network, moving
average, optimiser, step, progress, and what identifies the scan and the model. Validation samples never change, so
each is written once, to `validation/`, and named by every later shard.
A message of the stream is acknowledged only when a complete checkpoint holds all its frames as done with: trained on,
kept for validation, or refused. Until then the publisher keeps it, and sends it again to ranks that were started again.
What the last checkpoint should have held, but could not be written, is acknowledged once the final weights are served.
These go back to the newest complete checkpoint as a whole, model, buffer and counts alike: what was trained on after it
is forgotten together with its effect, and comes again. What comes again although the checkpoint holds it (a resumed
acquisition publishes everything anew, and another number of ranks is dealt other frames) is dropped, because every
rank knows the ids of all ranks. So no frame is trained on twice or left out by the model that results.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt, ValidationError

from ptychoflow.streaming.durable_file import (
    UNFINISHED_SUFFIX,
    make_folder_durably,
    move_durably,
    write_durably,
)
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.seal import BrokenSeal, check_seal

if TYPE_CHECKING:
    from ptychoflow.trainer.checkpoints.state_file import State

log = logging.getLogger(__name__)

FOLDER = re.compile(r"step-\d{8,}")
MARKER = "complete.json"
FORMAT: Literal[1] = 1
MAXIMUM_RANKS = 1 << 16
"""Of which a damaged marker may tell."""
COMMON = "common.safetensors"
VALIDATION = "validation"
DAMAGED_SUFFIX = ".damaged"
"""Of a checkpoint that does not count any more; people may look at it, or remove it."""


class Marker(Settings):
    """The file that is written last: the checkpoint is complete if it is there and all files have these sizes."""

    format: Literal[1] = FORMAT
    ranks: PositiveInt
    file_bytes: dict[str, int]
    validation: tuple[str, ...] = ()
    """Files of validation samples that were there."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk; its states are read when they are asked for."""

    path: Path
    marker: Marker

    @property
    def step(self) -> int:
        """Optimiser steps made when it was taken."""
        return int(self.path.name.removeprefix("step-"))

    def common(self) -> State:
        """Return what all ranks share.

        Raises:
            UserError: the file is damaged.
        """
        return self._read(self.path / COMMON)

    def shards(self) -> Sequence[State]:
        """Return what each rank alone had, in the order of the ranks.

        Raises:
            UserError: a file is damaged.
        """
        return [self._read(self.path / shard_name(rank)) for rank in range(self.marker.ranks)]

    def validation(self, names: Sequence[str]) -> list[State]:
        """Return the validation samples in the files of these names.

        Raises:
            UserError: a file is missing or damaged.
        """
        return [self._read(self.path.parent / VALIDATION / name) for name in names]

    def damage(self) -> str | None:
        """Return what is wrong with a file that the checkpoint needs; None if all are what was written. Reads them."""
        needed = [self.path / name for name in self.marker.file_bytes]
        needed += [self.path.parent / VALIDATION / name for name in self.marker.validation]
        for path in needed:
            try:
                check_seal(path)
            except BrokenSeal as error:
                return f"{path.relative_to(self.path.parent)}: {error}"
            except OSError as error:
                return f"{path.relative_to(self.path.parent)}: {error.strerror or error}"
        return None

    def _read(self, path: Path) -> State:
        # here, so that a launcher, which only asks which one is the newest, does not carry PyTorch all night
        from ptychoflow.trainer.checkpoints.state_file import BadState, read_state  # noqa: PLC0415

        try:
            return read_state(path)
        except (BadState, OSError) as error:
            raise UserError(
                f"checkpoint {self.path} is damaged: {error}; remove this folder to go back to the one before"
            ) from error


def shard_name(rank: int) -> str:
    """Return the name of a rank's file."""
    return f"rank-{rank}.safetensors"


def checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{step:08d}"


def begin(folder: Path, step: int) -> Path:
    """Return the folder into which the ranks write the checkpoint of a step; made if need be."""
    unfinished = folder / (checkpoint_name(step) + UNFINISHED_SUFFIX)
    make_folder_durably(unfinished)
    return unfinished


def complete(unfinished: Path, *, ranks: int, keep: int) -> Path:
    """Make a checkpoint count whose files are all on the disk; remove all but the newest `keep`. Return its folder.

    Raises:
        OSError: the disk does not take it.
    """
    names = [COMMON, *map(shard_name, range(ranks))]
    validation = tuple(sorted(path.name for path in (unfinished.parent / VALIDATION).glob("*.safetensors")))
    file_bytes = {name: (unfinished / name).stat().st_size for name in names}
    marker = Marker(ranks=ranks, file_bytes=file_bytes, validation=validation)
    path = unfinished.with_name(unfinished.name.removesuffix(UNFINISHED_SUFFIX))
    move_durably(unfinished, path)
    write_durably(path / MARKER, marker.model_dump_json(indent=2))
    for old in _folders(path.parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def is_complete(path: Path) -> bool:
    """Whether the checkpoint's marker has been written."""
    return (path / MARKER).is_file()


def is_later_begun(folder: Path, step: int) -> bool:
    """Whether a rank has begun the checkpoint of a later step, which it does once the one of `step` is done or lost."""
    names = [path.name.removesuffix(UNFINISHED_SUFFIX) for path in folder.glob("step-*")]
    return any(int(name.removeprefix("step-")) > step for name in names if FOLDER.fullmatch(name))


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, or None if there is none. Those that are not complete are left out.

    Raises:
        UserError: it was written by another version of the program.
    """
    for path in _folders(folder):
        marker = _read_marker(path)
        if marker is not None:
            return Checkpoint(path, marker)
    return None


def at(folder: Path, step: int) -> Checkpoint:
    """Return the complete checkpoint of a step.

    Raises:
        UserError: it is not there, or not complete, as it may look to a host that does not share the folder.
    """
    path = folder / checkpoint_name(step)
    marker = _read_marker(path)
    if marker is None:
        raise UserError(f"no complete checkpoint {path}: all ranks must see the run folder of rank 0")
    return Checkpoint(path, marker)


def remove_unfinished(folder: Path) -> None:
    """Remove what is left of checkpoints that were being written when the trainer was killed."""
    for path in folder.glob("step-*"):
        if path.name.endswith(UNFINISHED_SUFFIX) or not is_complete(path):
            log.info("removing the unfinished checkpoint %s", path)
            shutil.rmtree(path, ignore_errors=True)


def set_damaged_aside(folder: Path) -> None:
    """Give the newest checkpoints another name as long as they are damaged and there is one before. Reads their files.

    What they held is forgotten with them, as what was trained on after a checkpoint is.

    Raises:
        UserError: the only one that is left is damaged, or was written by another version of the program.
    """
    counting = [path for path in _folders(folder) if is_complete(path)]
    for place, path in enumerate(counting):
        if (damage := _damage(path)) is None:
            return
        if place == len(counting) - 1:
            raise UserError(
                f"checkpoint {path} is damaged, and there is none before: {damage}; "
                "remove this folder to train from the beginning"
            )
        aside = path.with_name(path.name + DAMAGED_SUFFIX)
        log.warning("checkpoint %s is damaged and passed over, it is %s now: %s", path, aside.name, damage)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def _damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint whose marker is there; None if nothing is.

    Raises:
        UserError: it was written by another version of the program.
    """
    try:
        marker = Marker.model_validate_json((path / MARKER).read_bytes())
    except ValidationError as error:
        if _is_of_another_format(path / MARKER):
            raise _foreign(path, error.errors()[0]) from None
        return f"{MARKER} cannot be read"
    missing = {COMMON, *map(shard_name, range(min(marker.ranks, MAXIMUM_RANKS)))} - marker.file_bytes.keys()
    if missing:
        return f"{MARKER} does not name {min(missing)}"
    if wrong := _of_wrong_size(path, marker):
        return f"{', '.join(wrong)} is missing or cut short"
    return Checkpoint(path, marker).damage()


def _is_of_another_format(marker: Path) -> bool:
    try:
        found = json.loads(marker.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format", FORMAT) != FORMAT


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, complete or not, newest first."""
    found = [path for path in folder.glob("step-*") if FOLDER.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _read_marker(path: Path) -> Marker | None:
    """Return the marker of a complete checkpoint, None of an incomplete one."""
    if not is_complete(path):
        log.warning("%s is not complete and is not used", path)
        return None
    try:
        marker = Marker.model_validate_json((path / MARKER).read_bytes())
    except ValidationError as error:
        raise _foreign(path, error.errors()[0]) from None
    if wrong := _of_wrong_size(path, marker):
        log.warning("%s is not complete and is not used: %s is missing or cut short", path, ", ".join(wrong))
        return None
    return marker


def _foreign(path: Path, problem: Any) -> UserError:
    where = ".".join(map(str, problem["loc"])) or "the file"
    return UserError(
        f"{path / MARKER} was not written by this version of ptychoflow ({where}: {problem['msg']}); "
        "resume with the version that wrote it, or remove this folder to go back to the one before"
    )


def _of_wrong_size(path: Path, marker: Marker) -> list[str]:
    return [name for name, size in marker.file_bytes.items() if _size(path / name) != size]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
