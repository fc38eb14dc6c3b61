"""A run as a SLURM job: which of its parts run on the job's nodes, and the script that starts them there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings, is_loopback
from ptychoflow.streaming.written_as import written_as
from ptychoflow.workflow.configuration.config import AnyConfig, Config
from ptychoflow.workflow.launching.ports import require_fixed

TEMPLATES = Path(__file__).parents[1] / "templates"
SHORTEST_MIN = 5
"""The job is told of the end of its time two minutes before."""
Time = Annotated[
    str,
    written_as(
        r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}",
        "give minutes (30), hours:minutes:seconds (4:00:00) or days-hours (1-12), as SLURM has it",
    ),
]
Name = Annotated[str, written_as(r"[\w.,+@-]+", "use letters, digits and . , _ + @ - alone")]


class SlurmJob(Settings):
    """What a job asks of SLURM."""

    nodes: PositiveInt
    """Nodes."""
    gpus: NonNegativeInt
    """GPUs of each node; each has a rank of the trainer."""
    ranks: PositiveInt
    """Ranks of the trainer on each node."""
    cpus: PositiveInt
    """Processors of each node."""
    time: Time | None = None
    """Longest duration, as SLURM writes it; the partition's own without."""
    partition: Name | None = None
    """Partition; the cluster's own choice without."""
    account: Name | None = None
    """Who pays; the user's own account without."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port of the first node where the ranks meet."""


def asked_job(**options: Any) -> SlurmJob:
    """Return what a user asks for.

    Raises:
        UserError: with the option that is wrong.
    """
    try:
        job = SlurmJob(**options)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = f"--{'.'.join(map(str, wrong['loc']))}"
        raise UserError(f"{option} {wrong['input']} is wrong: {wrong['msg'].removeprefix('Value error, ')}") from None
    if job.time is not None and _minutes(job.time) < SHORTEST_MIN:
        raise UserError(f"--time {job.time} is too short: give {SHORTEST_MIN} minutes, the last two are for the end")
    return job


@dataclass(frozen=True)
class _Placement:
    """Which parts run in the job."""

    hub: bool
    edge: bool
    acquisition: bool
    outputs: bool

    def here(self) -> str:
        named = {"the hub with its page": self.hub, "outputs": self.outputs, "the edge": self.edge}
        on_head = [name for name, chosen in (named | {"the acquisition": self.acquisition}).items() if chosen]
        return "the trainer on all nodes" + (f"; on the first node {_listed(on_head)}" if on_head else "")

    def elsewhere(self, edge_wanted: bool) -> str:
        missing = {"the hub": not self.hub, "the edge": edge_wanted and not self.edge}
        return _listed([name for name, away in (missing | {"the acquisition": not self.acquisition}).items() if away])


def job_script(
    job: SlurmJob,
    config: AnyConfig,
    *,
    file: Path,
    command: Sequence[str],
    assignments: Sequence[str] = (),
    edge_here: bool | None = None,
) -> str:
    """Return the text of the batch script.

    Parts whose host the configuration does not name run on the job's first node, the trainer on all nodes.

    Args:
        job: what SLURM is asked for.
        config: of the run, as `file` and `assignments` give it.
        file: the configuration file, which the parts will read.
        command: that made the script.
        assignments: texts `section.key=value` for the parts.
        edge_here: whether the edge runs in the job; without, it does where the acquisition does.

    Raises:
        UserError: the configuration cannot serve parts that are started one by one, or that run on several nodes.
    """
    placement = _place(config, edge_here)
    require_fixed(config.network)
    _require_what_a_job_needs(job, config)
    network = config.network
    at_head = ("hub_host", "trainer_host", "acquisition_host")
    environment = Environment(  # noqa: S701 what is written is no HTML
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("slurm_job.sh.j2").render(
        job=job,
        run=config.run,
        command=_within_comment(shlex.join(command)),
        commented_file=_within_comment(str(file)),
        config_file=shlex.quote(str(file)),
        folder=shlex.quote(str(config.run.context().folder.path)),
        # without keys all parts are on one node, and talk over loopback
        hosts=[key for key in at_head if network.keys_dir is not None and is_loopback(getattr(network, key))],
        assignments=[shlex.quote(text) for text in assignments],
        hub=placement.hub,
        edge=placement.edge,
        acquisition=placement.acquisition,
        outputs=placement.outputs,
        here=placement.here(),
        elsewhere=placement.elsewhere(config.acquisition.edge),
    )


def _place(config: AnyConfig, edge_here: bool | None) -> _Placement:
    network, wanted = config.network, config.acquisition.edge
    acquisition, hub = is_loopback(network.acquisition_host), is_loopback(network.hub_host)
    if edge_here and not wanted:
        raise UserError("--edge: acquisition.edge = false, so an edge would get nothing and wait for ever")
    edge = wanted and (acquisition if edge_here is None else edge_here)
    return _Placement(
        hub, edge, acquisition, outputs=hub and isinstance(config, Config) and bool(config.outputs.chosen)
    )


def _require_what_a_job_needs(job: SlurmJob, config: AnyConfig) -> None:
    if "name" not in config.run.model_fields_set:
        raise UserError(
            "run.name is not set, so that a job that is started again would not find its run: "
            "name it in the configuration, or with --set run.name=NAME"
        )
    if not config.acquisition.trainer:
        raise UserError("acquisition.trainer = false: a job without a trainer needs no nodes; use `ptychoflow run`")
    if job.nodes > 1 and config.network.keys_dir is None:
        raise UserError("several nodes need keys: run `ptychoflow keys DIR`, and set network.keys_dir")


def _minutes(time: str) -> float:
    """Return SLURM's minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]] in minutes."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return (int(days) * 24 + hours) * 60 + minutes + seconds / 60
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + numbers[2] / 60
    return numbers[0] + (numbers[1] / 60 if len(numbers) == 2 else 0)


def _within_comment(text: str) -> str:
    """Return a text that stays a comment: a line of its own would be run, and SLURM would read no option after it."""
    return text.replace("\n", "\n#   ")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
