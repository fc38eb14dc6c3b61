"""The sub-commands of `ptychoflow`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from ptychoflow.workflow.commands.acquire import acquire
from ptychoflow.workflow.commands.bench import app as bench
from ptychoflow.workflow.commands.dashboard import dashboard
from ptychoflow.workflow.commands.detector import detector
from ptychoflow.workflow.commands.doctor import doctor
from ptychoflow.workflow.commands.edge import edge
from ptychoflow.workflow.commands.experiment import app as experiment
from ptychoflow.workflow.commands.fashion_mnist import fashion_mnist
from ptychoflow.workflow.commands.hand_over import hand_over
from ptychoflow.workflow.commands.inspect import inspect
from ptychoflow.workflow.commands.keys import keys
from ptychoflow.workflow.commands.outputs import outputs
from ptychoflow.workflow.commands.report import report
from ptychoflow.workflow.commands.resume import resume
from ptychoflow.workflow.commands.run import run
from ptychoflow.workflow.commands.simulate import simulate
from ptychoflow.workflow.commands.submit import submit
from ptychoflow.workflow.commands.train import train
from ptychoflow.workflow.commands.view import view


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ptychoflow {version('ptychoflow')}")
        raise typer.Exit


def _before_the_sub_command(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Live X-ray ptychography: a network learns phase retrieval from the running scan and images at beam rate."""


def create_app() -> typer.Typer:
    """Return the command with all its sub-commands."""
    app = typer.Typer(
        name="ptychoflow",
        add_completion=False,
        rich_markup_mode=None,
    )
    parts = (acquire, train, edge, dashboard, outputs, keys, submit, doctor)
    for command in (run, resume, inspect, simulate, detector, report, view, hand_over, *parts, fashion_mnist):
        app.command()(command)
    app.callback()(_before_the_sub_command)
    app.add_typer(bench, name="bench")
    app.add_typer(experiment, name="experiment")
    return app
