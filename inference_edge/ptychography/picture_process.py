"""The process that draws pictures: `python -m … RUN`; a line in asks for a perspective, a line out says what failed.

It yields to imaging where processors are few. It ends when the edge does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ptychoflow.inference_edge.ptychography.pictures import draw_pictures
from ptychoflow.streaming.child_process import begin_child, requests_of_parent
from ptychoflow.streaming.run_folder import RunFolder

NICENESS = 5


def main(folder: RunFolder) -> None:
    """Draw what is asked for until the edge closes the pipe; an empty line says that all went well."""
    answers, requests = begin_child(), requests_of_parent()
    os.nice(NICENESS)
    while True:
        perspective = int(requests.get())
        try:
            draw_pictures(folder, perspective)
        except OSError as error:
            fault = f"{error.filename or 'a picture'}: {error.strerror or error}".replace("\n", " ")
        else:
            fault = ""
        answers.write(fault.encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main(RunFolder(Path(sys.argv[1])))
