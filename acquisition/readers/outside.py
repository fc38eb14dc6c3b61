"""What an HDF5 file takes from elsewhere: from its own folder and those below it alone, unless the user names others.

A file that came from somebody else could otherwise show any file of this host as frames: HDF5 takes values from
whichever file an external link, a virtual dataset or external storage names, the last of them byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import h5py

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.set_option import set_option

MAXIMUM_DEPTH = 16
"""Of links that lead to links; HDF5 follows no more."""

OUTSIDE = "which is not in the file's own folder"

_NAMED: ContextVar[tuple[Path, ...] | None] = ContextVar("folders named by the user", default=None)


@contextmanager
def links_allowed_to(folders: Sequence[Path]) -> Iterator[None]:
    """Let files that are opened within the context take what they need from `folders`, too."""
    token = _NAMED.set(tuple(folders))
    try:
        yield
    finally:
        _NAMED.reset(token)


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, wherever links lead, is in the folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def find_beside(path: Path, name: str) -> Path | None:
    """Return the file `name` where HDF5 looks for it; None if it is not there.

    That is: as it is, beside `path`, and beside the file that `path` is a symbolic link to.
    """
    beside = Path(name).name if Path(name).is_absolute() else name
    candidates = [path.parent / name, path.parent / beside, Path(name), path.resolve().parent / beside]
    return next((candidate for candidate in candidates if _is_there(candidate)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def refuse_outside_links(group: h5py.Group, name: str) -> None:
    """Raise `UserError` if a link on the way to `name` leads out of the folder of the file that `group` is in."""
    _follow(group, name, _home(group), depth=0)


def refuse_outside_values(dataset: h5py.Dataset) -> None:
    """Raise `UserError` if a dataset keeps values outside of its file's folder.

    Values in a file that is not HDF5 are refused wherever it lies, unless the user named its folder. Of virtual
    datasets the files are looked at, not what is in them.
    """
    own, where = Path(dataset.file.filename), f"{dataset.file.filename}: {dataset.name}"
    for name, _, _ in dataset.external or ():
        _refuse_unless(Path(name), _NAMED.get() or (), f"{where} keeps its values in", "a file that is not HDF5")
    for source in {source.file_name for source in dataset.virtual_sources()} if dataset.is_virtual else ():
        for path in _sources(own, source):
            _refuse_unless(path, _home(dataset), f"{where} is put together from")


def _home(item: h5py.Group | h5py.Dataset) -> tuple[Path, ...]:
    path = Path(item.file.filename)
    return (path.parent, path.resolve().parent, *(_NAMED.get() or ()))


def _follow(group: h5py.Group, name: str, home: Sequence[Path], *, depth: int) -> None:
    here: h5py.Group | None = group["/"] if name.startswith("/") else group
    parts = [part for part in name.split("/") if part and part != "."]
    for place, part in enumerate(parts):
        if not isinstance(here, h5py.Group) or depth > MAXIMUM_DEPTH:
            return
        link, rest = here.get(part, getlink=True), parts[place + 1 :]
        if isinstance(link, h5py.ExternalLink):
            path = find_beside(Path(here.file.filename), link.filename)
            if path is not None:
                _refuse_unless(path, home, f"{here.file.filename}: {name} is a link to")
                with _opened(path) as other:
                    _follow(other, "/".join(["", link.path, *rest]), home, depth=depth + 1)
            return
        if isinstance(link, h5py.SoftLink):
            _follow(here, "/".join([link.path, *rest]), home, depth=depth + 1)
            return
        here = here.get(part)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    with h5py.File(path, "r") as file:
        yield file["/"]


def _sources(own: Path, name: str) -> list[Path]:
    """Return the files of a virtual dataset's source that are there; `%b` in its name stands for numbers."""
    if name == ".":
        return []
    if "%b" in name:
        pattern = Path(name.replace("%b", "*"))
        folder = own.parent / pattern.parent
        return [folder / pattern.name, *folder.glob(pattern.name)] if "*" not in str(folder) else [folder]
    path = find_beside(own, name)
    return [] if path is None else [path]


def _refuse_unless(path: Path, folders: Sequence[Path], what: str, why: str = OUTSIDE) -> None:
    if any(is_inside(path, folder) for folder in folders):
        return
    named = json.dumps([str(path.parent)], ensure_ascii=False)
    allowed = (
        "copy it beside the file"
        if _NAMED.get() is None
        else f"if it may be read, name its folder: {set_option('source.links_to', named)}"
    )
    raise UserError(f"{what} {path}, {why}; {allowed}")
