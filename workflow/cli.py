"""The command `ptychoflow`: how every one of its sub-commands ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator

from ptychoflow.streaming.errors import DISK_FULL, UserError
from ptychoflow.streaming.waiting_threads import waiting_threads
from ptychoflow.workflow.exit_status import FAILED_STATUS, USER_ERROR_STATUS
from ptychoflow.workflow.interruption import Interruption
from ptychoflow.workflow.logs import PROGRAM, configure_logging, outlive_terminal, print_error, report_bug


def main() -> None:
    """Run the command line of this process and exit with its status.

    0: the work was done. 2: a user's mistake, told in one line. 130: ended in order after Ctrl-C (of `view` and
    `detector`: 0). 1: anything else.

    Raises:
        KeyboardInterrupt: Ctrl-C, where the command does not end in an order of its own.
    """
    sys.excepthook = report_bug
    outlive_terminal()
    configure_logging()
    os.environ.update(waiting_threads(os.environ))  # for this process and its children
    allow_many_files()
    with _interruptions_kept():
        sys.exit(run_command_line(sys.argv[1:]))


@contextlib.contextmanager
def _interruptions_kept() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, also where a library that is interrupted raises an error of its own."""
    interruption = Interruption()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interruption)
    try:
        yield
    except Exception as error:
        if interruption.came:  # pydantic does so while its classes are made
            raise KeyboardInterrupt from error
        raise


def allow_many_files() -> None:
    """Let this process and its children open as many files as they may: a scan can lie in thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says infinity, and refuses it
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_command_line(arguments: list[str]) -> int:
    """Run one command line in this process, print the line of a user's mistake, and return the exit status."""
    # imported here, so that Ctrl-C during this second ends like any other
    import typer  # noqa: PLC0415
    from typer.main import get_command  # noqa: PLC0415

    from ptychoflow.workflow.app import create_app  # noqa: PLC0415
    from ptychoflow.workflow.former_names import with_present_names  # noqa: PLC0415

    command = get_command(create_app())
    try:
        # not its main(), which tells an interruption by a status alone
        with command.make_context(PROGRAM, with_present_names(arguments)) as context:
            status = command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:  # who read the output has ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED_STATUS
    except UserError as error:
        print_error(str(error))
        return USER_ERROR_STATUS
    except OSError as error:
        if (complaint := _complaint(error)) is None:
            raise
        print_error(complaint)
        return USER_ERROR_STATUS
    except typer.TyperException as error:
        where = getattr(error, "ctx", None)  # mistakes in the use of a command have one
        path = PROGRAM if where is None else where.command_path
        print_error(f"{error.format_message().rstrip('.')}; try '{path} --help'")
        return USER_ERROR_STATUS
    return int(status or 0)


def _complaint(error: OSError) -> str | None:
    """Return what to tell a person who can mend it; None of any other error."""
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; ask its owner, or name another place"
    if error.errno in DISK_FULL:
        return f"{error.filename or 'the output'}: {error.strerror}; make room, or name another place"
    return None
