"""`ptychoflow submit`: a run as a SLURM job."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.workflow.commands.options import SetOption

CPUS_PER_RANK = 8
MASTER_PORT = 29500


def submit(
    config: Annotated[
        Path, typer.Argument(help="TOML file with fixed ports, as for parts started one by one.", metavar="CONFIG")
    ],
    *,
    nodes: Annotated[int, typer.Option(help="Nodes; the trainer runs on all of them.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each node.")] = 0,
    ranks: Annotated[
        int | None, typer.Option(help="Trainer processes on each node (default: one for each GPU, one without).")
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="Processors of each node (default: 8 for each rank).")] = None,
    time: Annotated[
        str | None, typer.Option(help="Longest duration, as SLURM writes it: 30, 4:00:00, 1-12 ...", metavar="TIME")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition.", metavar="NAME")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM's account.", metavar="NAME")] = None,
    port: Annotated[int | None, typer.Option(help="Where the ranks meet (default: 29500).")] = None,
    edge: Annotated[
        bool | None,
        typer.Option("--edge/--no-edge", help="Run the edge in the job (default: where the acquisition runs)."),
    ] = None,
    assignments: SetOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Script to write (default: the run's name with .sbatch).", metavar="FILE")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Submit it by sbatch.")] = False,
) -> None:
    """Write a run as a SLURM job, which goes on with the run when it is started again.

    Parts whose host the configuration names run elsewhere; all others run in the job.
    """
    from ptychoflow.workflow.configuration.config import load_config
    from ptychoflow.workflow.launching.slurm_job import asked_job, job_script
    from ptychoflow.workflow.launching.slurm_submission import submit_script, write_script
    from ptychoflow.workflow.logs import PROGRAM

    ranks = (gpus or 1) if ranks is None else ranks
    job = asked_job(
        nodes=nodes,
        gpus=gpus,
        ranks=ranks,
        cpus=CPUS_PER_RANK * ranks if cpus is None else cpus,
        time=time,
        partition=partition,
        account=account,
        port=MASTER_PORT if port is None else port,
    )
    settings = load_config(file=config, assignments=assignments or ())
    placed: dict[str, bool] = {} if edge is None else {"edge" if edge else "no-edge": True}
    asked: dict[str, int | str | None] = {"nodes": nodes, "gpus": gpus, "cpus": cpus}
    asked["ranks"] = ranks if ranks != (gpus or 1) else None
    asked |= {"time": time, "partition": partition, "account": account, "port": port, **placed}
    script = job_script(
        job,
        settings,
        file=config,
        command=[PROGRAM, "submit", *_given(asked), *_repeated("--set", assignments or ()), str(config)],
        assignments=assignments or (),
        edge_here=edge,
    )
    path = write_script(script, output or Path(f"{settings.run.name}.sbatch"))
    typer.echo(submit_script(path) if now else f"{path}: submit it with `{shlex.join(['sbatch', str(path)])}`")


def _given(options: Mapping[str, int | str | None]) -> Iterator[str]:
    """Yield the command line of options that are given."""
    for name, value in options.items():
        if value:
            yield f"--{name}"
            if value is not True:
                yield str(value)


def _repeated(option: str, values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (option, value)
