"""The command `ptychoflow`: its sub-commands, and how every one of them ends."""

from __future__ import annotations

import sys

import typer
from typer.main import get_command

from streaming.errors import UserError
from workflow.commands.acquire import acquire
from workflow.commands.bench import app as bench
from workflow.commands.dashboard import dashboard
from workflow.commands.edge import edge
from workflow.commands.inspect import inspect
from workflow.commands.keys import keys
from workflow.commands.report import report
from workflow.commands.run import run
from workflow.commands.simulate import simulate
from workflow.commands.train import train
from workflow.logs import configure_logging, print_error, report_bug

USER_ERROR_STATUS = 2

app = typer.Typer(
    name="ptychoflow",
    help="Live X-ray ptychography: a network learns phase retrieval from the running scan and images at beam rate.",
    add_completion=False,
    rich_markup_mode=None,
)
for _command in (run, inspect, simulate, report, acquire, train, edge, dashboard, keys):
    app.command()(_command)
app.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line of this process and exit with its status.

    0: the work was done. 2: a user's mistake, told in one line. 130: ended in order after Ctrl-C. 1: anything else.
    """
    sys.excepthook = report_bug
    configure_logging()
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        status = get_command(app).main(args=arguments, prog_name="ptychoflow", standalone_mode=False)
    except UserError as error:
        print_error(str(error))
        return USER_ERROR_STATUS
    except typer.TyperException as error:
        print_error(f"{error.format_message().rstrip('.')}; try 'ptychoflow --help'")
        return USER_ERROR_STATUS
    return int(status or 0)
