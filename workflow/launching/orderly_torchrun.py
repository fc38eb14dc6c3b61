"""torchrun, which says in a line that it was asked to end: by itself it prints a traceback.

Usage: python -m ptychoflow.workflow.launching.orderly_torchrun OPTIONS OF TORCHRUN
"""

from __future__ import annotations

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException

from ptychoflow.workflow.logs import print_error

KILLED_STATUS = 128


def main(arguments: list[str]) -> None:
    """Run torchrun until the ranks have ended; exit with 128 and the number of the signal that asked for it."""
    try:
        run.main(arguments)
    except SignalException as ended:
        print_error(f"torchrun has ended its ranks, as {ended.sigval.name} asked for")
        sys.exit(KILLED_STATUS + ended.sigval)


if __name__ == "__main__":
    main(sys.argv[1:])
