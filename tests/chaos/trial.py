"""One trial: a run that is struck, resumed until it is complete, and looked at after each end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apart import is_apart, mount_small_disk, unmount
from checks import half_written, left_in_system, not_once, wrong_counts, wrong_status
from run import Run
from strikes import Blow, Kind, Strike, choose_strike, deliver
from victims import described

from ptychoflow.streaming.run_folder import RunFolder

DISK_BYTES = 96 << 20
GONE_S = 45.0
"""Longer than the parts of a killed launcher live on, on a busy host."""
STARTS = 8
"""A run that is not complete after so many is never."""
FRAMES_PORT = 7001
"""With a port, the parts talk over loopback, which can go down; it is not anybody else's where a trial is apart."""
STILL_GOING_ON = "is still going on"


@dataclass(frozen=True)
class Plan:
    """What is done in a trial: the same for the same seed and number."""

    settings: Mapping[str, Any]
    strikes: Sequence[Strike]
    at_once: bool
    """Resume without waiting for what a killed launcher has left."""


@dataclass
class Outcome:
    """What came of a trial."""

    blows: list[Blow] = field(default_factory=list)
    starts: int = 0
    hung: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    not_once: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    """Half-written files, and exit statuses that are not the manual's."""

    @property
    def faults(self) -> list[str]:
        """Everything that did not hold."""
        return [*self.hung, *self.left_behind, *self.unbalanced, *self.not_once, *self.otherwise]


def make_plan(seed: int, number: int) -> Plan:
    """Return the plan of a trial."""
    chance = random.Random(f"{seed}/{number}")
    settings = {
        "trainer.ranks": chance.choice((1, 1, 2)),
        "dashboard.enabled": chance.random() < 0.4,
        "acquisition.roles.hold_out": "last_perspective" if chance.random() < 0.2 else "none",
    }
    strikes = [choose_strike(chance, apart=is_apart()) for _ in range(chance.choice((1, 2, 2, 3)))]
    if any(strike.kind is Kind.LINK_DOWN for strike in strikes):
        settings["network.frames_port"] = FRAMES_PORT
    return Plan(settings, strikes, at_once=chance.random() < 0.5)


def carry_out(plan: Plan, folder: Path) -> Outcome:
    """Carry out a trial in a folder, which stays if a fault was found."""
    if is_apart():
        mount_small_disk(folder, DISK_BYTES)
    else:
        folder.mkdir(parents=True)
    outcome = Outcome()
    try:
        _carry_out(plan, folder, outcome)
    finally:
        kept = folder.with_suffix(".failed")
        if outcome.faults:
            shutil.copytree(folder, kept, ignore_dangling_symlinks=True)
        if is_apart():
            unmount(folder)
        shutil.rmtree(folder)
    return outcome


def _carry_out(plan: Plan, folder: Path, outcome: Outcome) -> None:
    strikes = list(plan.strikes)
    run = Run(folder / "run", plan.settings)
    while outcome.starts < STARTS and not outcome.hung:
        outcome.starts += 1
        run.start()
        blows = _strike(strikes, run)
        outcome.blows += blows
        if not run.wait_until_ended():
            outcome.hung.append(f"start {outcome.starts} hangs: {', '.join(map(described, run.wait_until_gone(0.0)))}")
            run.tell_where_it_hangs()
            run.kill()
            return
        if STILL_GOING_ON in run.said and run.status == 2:
            _wait_until_gone(run, outcome)
            continue
        if not plan.at_once or run.status == 0:
            _wait_until_gone(run, outcome)
        if not run.folder.exists() or not RunFolder(run.folder).config.exists():
            _wait_until_gone(run, outcome)
            run = Run(folder / f"run-{outcome.starts}", plan.settings)
            continue
        if _look(run, blows, outcome):
            return
    if not outcome.hung:
        outcome.otherwise.append(f"not complete after {outcome.starts} starts: {run.said[-600:]}")


def _strike(strikes: list[Strike], run: Run) -> list[Blow]:
    """Deliver strikes while the run is there; those that were delivered, or came too late, are taken off the list."""
    blows = []
    while strikes and run.status is None:
        if run.wait_for(strikes[0].moment, strikes[0].delay_s):
            blows.append(deliver(strikes.pop(0), run))
        else:
            blows.append(Blow(strikes.pop(0)))
    return blows


def _wait_until_gone(run: Run, outcome: Outcome) -> None:
    if left := run.wait_until_gone(GONE_S):
        outcome.left_behind += [f"after start {outcome.starts}: {described(process)}" for process in left]
        run.tell_where_it_hangs()
        run.kill()
    if is_apart():
        outcome.left_behind += [f"after start {outcome.starts}: {one}" for one in left_in_system()]


def _look(run: Run, blows: list[Blow], outcome: Outcome) -> bool:
    """Look at what a command has left; return whether the run is complete."""
    folder, status = RunFolder(run.folder), run.status
    complete = status == 0 or (status == 2 and "has ended well: there is nothing to resume" in run.said)
    where = f"after start {outcome.starts}"
    if not (complete and status == 2):
        faults = wrong_status(status or 0, run.said, folder, blows, again=outcome.starts > 1)
        outcome.otherwise += [f"{where}: {one}" for one in faults]
    outcome.otherwise += [f"{where}: {one}" for one in half_written(run.folder, completed=complete)]
    if complete:
        outcome.unbalanced += wrong_counts(folder)
        outcome.not_once += not_once(folder)
    return complete
