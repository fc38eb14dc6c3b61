"""Has pictures drawn by a process of their own."""

from __future__ import annotations

import logging

from ptychoflow.streaming.child import Child, ChildEnded
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)

PROCESS = "ptychoflow.inference_edge.ptychography.picture_process"
POLL_S = 60.0
ATTEMPTS = 2


class PictureDrawer:
    """Starts the process with the first picture, and again should it be gone. Use it from one thread at a time.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._child: Child | None = None

    def draw(self, perspective: int) -> None:
        """Draw the pictures of a perspective whose file is on the disk; blocks until they are.

        What two processes did not survive is left out with a word in the log; an edge that is started again draws it.

        Raises:
            OSError: a picture cannot be written.
        """
        for _ in range(ATTEMPTS):
            child = self._child = self._child or Child(PROCESS, [str(self._folder.path)], threads=1)
            child.send(str(perspective).encode())
            try:
                while (answer := child.receive(POLL_S)) is None:
                    pass
            except ChildEnded as error:
                log.warning("the pictures of perspective %d were not drawn to their end: %s", perspective, error)
                self.close()
                continue
            if fault := answer.decode().strip():
                raise OSError(fault)
            return

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None
