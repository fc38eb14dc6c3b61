"""The sub-commands of `ptychoflow`."""

from __future__ import annotations

import typer

from workflow.commands.acquire import acquire
from workflow.commands.bench import app as bench
from workflow.commands.dashboard import dashboard
from workflow.commands.edge import edge
from workflow.commands.experiment import app as experiment
from workflow.commands.fashion_mnist import fashion_mnist
from workflow.commands.inspect import inspect
from workflow.commands.keys import keys
from workflow.commands.report import report
from workflow.commands.resume import resume
from workflow.commands.run import run
from workflow.commands.simulate import simulate
from workflow.commands.train import train
from workflow.commands.view import view


def create_app() -> typer.Typer:
    """Return the command with all its sub-commands."""
    app = typer.Typer(
        name="ptychoflow",
        help="Live X-ray ptychography: a network learns phase retrieval from the running scan and images at beam rate.",
        add_completion=False,
        rich_markup_mode=None,
    )
    for command in (run, resume, inspect, simulate, report, view, acquire, train, edge, dashboard, keys, fashion_mnist):
        app.command()(command)
    app.add_typer(bench, name="bench")
    app.add_typer(experiment, name="experiment")
    return app
