"""An acquisition's claim on its run folder: a second one would delete the frames that the first has yet to send."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychoflow.streaming.durable_file import make_folder_durably
from ptychoflow.streaming.errors import UserError, writing

log = logging.getLogger(__name__)

LOCK = ".lock"
"""In the run's spool."""


@contextmanager
def claimed_spool(spool: Path) -> Iterator[None]:
    """Keep other acquisitions, on other hosts too, out of a run's spool within the context.

    The system ends the claim with the process. Where the file system knows no locks, nobody is kept out, and the log
    says so.

    Raises:
        UserError: another acquisition works there, or the folder cannot be written.
    """
    with writing(spool):
        make_folder_durably(spool)
        # over NFS, a file that is not open for writing cannot be locked for oneself alone
        file = (spool / LOCK).open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another acquisition runs in {spool.parent}: stop it first, or choose another run.name"
            ) from None
        except OSError as error:
            log.warning("nothing keeps a second acquisition out of %s: it cannot be locked (%s)", spool, error.strerror)
        yield
