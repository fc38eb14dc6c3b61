"""What a process that `child.Child` started does first."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import BinaryIO


def begin_child() -> BinaryIO:
    """Leave Ctrl-C to the parent, log to standard error, and return the pipe to the parent.

    What libraries print goes to standard error from now on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("ptychoflow.acquisition").setLevel(logging.INFO)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
