"""Logging of every command: for people on standard error, and for later in the run's folder."""

from __future__ import annotations

import functools
import io
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from ptychoflow.streaming.printable import PrintableFormatter, printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PROGRAM = "ptychoflow"
FILE_FORMAT = "%(levelname)s %(name)s: %(message)s"
RANK_VARIABLE = "RANK"
"""Set by torchrun, whose ranks share one log."""
NOISY = ("asyncio", "h5py", "httpx", "matplotlib", "numba", "PIL", "uvicorn.access", "websockets")
TAIL_BYTES = 8192

log = logging.getLogger(__name__)


@functools.cache
def stderr_console() -> Console:
    """Return the one console of standard error; log lines and a live display share it so that they do not collide."""
    return Console(stderr=True)


class _LastingOutput(io.FileIO):
    """Takes what is written even when nobody does any more: a terminal that was closed, a pipe's reader that ended."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or drop what cannot be written; return the number of bytes."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive_terminal() -> None:
    """Let standard error take what is written as long as the process lives; a run does not end with its terminal."""
    output = io.BufferedWriter(_LastingOutput(sys.stderr.fileno(), "w", closefd=False))
    sys.stderr = io.TextIOWrapper(output, encoding=sys.stderr.encoding, errors=sys.stderr.errors, line_buffering=True)


def configure_logging() -> None:
    """Send the log to standard error: short coloured lines on a terminal, full plain ones elsewhere."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=stderr_console(), show_path=False, markup=False)
        handler.setFormatter(PrintableFormatter("%(message)s", datefmt="[%X]"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_file_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def log_to_file(path: Path) -> None:
    """Also append the log to a file, unless standard error already goes there, as it does under the launcher."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    if os.path.samestat(os.fstat(sys.stderr.fileno()), path.stat()):
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_file_formatter())
    logging.getLogger().addHandler(handler)


def _file_formatter() -> logging.Formatter:
    rank = os.environ.get(RANK_VARIABLE)
    return PrintableFormatter(f"%(asctime)s rank {rank} {FILE_FORMAT}" if rank else f"%(asctime)s {FILE_FORMAT}")


def print_error(message: str) -> None:
    """Print the one line that ends a command which could not do its work."""
    one_line = printable(" ".join(message.split()))
    print(f"{PROGRAM}: {one_line}", file=sys.stderr)  # noqa: T201 this is the command's answer, not a log entry


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook`: keep the traceback of a bug in a log file and print one line that names it."""
    handlers, path = _bug_handlers()
    record = log.makeRecord(log.name, logging.CRITICAL, __file__, 0, "unexpected error", (), (kind, error, trace))
    for handler in handlers:
        handler.handle(record)
    print_error(f"unexpected {kind.__name__}: {error}; the traceback is in {path}")


def _bug_handlers() -> tuple[list[logging.Handler], str]:
    """Return where a traceback goes: the run's log, or standard error if that is the log, or a new file."""
    present = logging.getLogger().handlers
    files = [handler for handler in present if isinstance(handler, logging.FileHandler)]
    if files:
        return list(files), files[0].baseFilename
    if stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode):
        return list(present), "this log"
    descriptor, path = tempfile.mkstemp(prefix=f"{PROGRAM}-error-", suffix=".log")
    os.close(descriptor)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_file_formatter())
    return [handler], path


def last_words(path: Path) -> str:
    """Return the last line of a log that has words, preferring the one in which the part said why it gave up."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if any(character.isalnum() for character in line)]
    for line in reversed(lines):
        if line.startswith(f"{PROGRAM}: "):
            return line.removeprefix(f"{PROGRAM}: ")
    return lines[-1] if lines else ""
