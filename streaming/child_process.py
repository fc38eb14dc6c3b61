"""What a process that `child.Child` started does first."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from ptychoflow.streaming.printable import PrintableFormatter


def begin_child() -> BinaryIO:
    """Leave Ctrl-C to the parent, log to standard error, and return the pipe to the parent.

    What libraries print goes to standard error from now on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("ptychoflow").setLevel(logging.INFO)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def requests_of_parent(at_end: Callable[[], None] = lambda: None) -> queue.SimpleQueue[bytes]:
    """Return the queue into which a thread puts every line that the parent sends.

    When the parent closes the pipe, or is gone, the thread calls `at_end` and ends this process, whatever it is at.
    """
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        # `sys.stdin` would be locked while it is read, and a process that ends meanwhile aborts
        with os.fdopen(os.dup(0), "rb") as lines:
            for line in lines:
                requests.put(line)
        at_end()
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests
