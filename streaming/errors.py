"""Errors that a user can act on: one line that says what happened, where, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ptychoflow.streaming.printable import printable

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class UserError(Exception):
    """A mistake in input, configuration or environment; the CLI prints it as one line and exits with status 2.

    Whatever the text quotes from outside, such as a name in a file, it stays one line, without control characters.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(" ".join(text.split())))


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn an OSError within the context into a UserError that says that `what` cannot be written.

    Raises:
        UserError: the disk did not take it.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what}: {error.strerror or error}; {_remedy(error)}") from error


def _remedy(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "make the folder that it belongs in, or name another place"
        case FileExistsError() | NotADirectoryError():
            return "a part of this path is a file: name another place"
        case IsADirectoryError():
            return "a folder is in its place: remove it, or name another place"
    return "check permission and disk space"
