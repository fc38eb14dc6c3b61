"""`ptychoflow resume`: goes on with a run that was interrupted or killed, in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.workflow.configuration.config import AnyConfig, load_config
from ptychoflow.workflow.configuration.layers import Table, parse_assignments
from ptychoflow.workflow.launching.ended_run import refuse_ended_run
from ptychoflow.workflow.launching.ports import is_taken, without_taken_ports

log = logging.getLogger(__name__)

PLACE = frozenset({"directory", "name"})
"""Keys of [run] that the folder itself tells."""


def resumed_config(run: Path, assignments: Iterable[str] = (), *, options: Table | None = None) -> AnyConfig:
    """Return the configuration with which the run in a folder goes on: its own, with some keys replaced.

    Ports that somebody else has taken meanwhile are chosen anew.

    Raises:
        UserError: the folder holds no run, or one that has ended well; its checkpoints are of another version of the
            program; or a key is to be replaced that must stay.
    """
    run = run.resolve()
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise UserError(
            f"{run} is not the folder of a run: it holds no {folder.config.name}; name a folder runs/<name>"
        )
    refuse_ended_run(folder)
    assignments = list(assignments)
    if moved := PLACE & parse_assignments(assignments).values.get("run", {}).keys():
        names = " and ".join(f"run.{key}" for key in sorted(moved))
        raise UserError(f"{names}: a resumed run stays in its folder; move {run} itself before, or leave this out")
    file = folder.earlier_config if folder.earlier_config.exists() else folder.config
    before = load_config(file=file)
    place = {"run": {"directory": str(run.parent), "name": run.name}}
    after = load_config(file=file, assignments=assignments, options=_merge(options or {}, place))
    if type(before) is not type(after):
        raise UserError("source.kind: cannot be changed in a run that is resumed; start a new run instead")
    changed = [key for key in before.fixed if _section(before, key) != _section(after, key)]
    if changed:
        raise UserError(f"{', '.join(changed)}: cannot be changed in a run that is resumed; start a new run instead")
    checkpoint = newest(folder.checkpoints)
    log.info("the trainer goes on from %s", checkpoint.path if checkpoint else "its beginning: there is no checkpoint")
    network = without_taken_ports(after.network, ranks=after.trainer.ranks)
    dashboard = after.dashboard
    if is_taken(dashboard.port, host=dashboard.host):
        dashboard = dashboard.model_copy(update={"port": 0})
    return after.model_copy(update={"network": network, "dashboard": dashboard})


def _section(config: AnyConfig, dotted: str) -> Any:
    return reduce(getattr, dotted.split("."), config)


def _merge(options: Table, place: Table) -> Table:
    return {**options, **{section: {**options.get(section, {}), **keys} for section, keys in place.items()}}
