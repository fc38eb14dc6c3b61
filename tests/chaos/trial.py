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
from run import Moment, Run
from strikes import APART, Blow, Kind, Strike, choose_strike, deliver
from victims import Victim, described

from ptychoflow.streaming.run_folder import RunFolder

DISK_BYTES = 96 << 20
DOZEN_RATE_HZ = 8.0
GONE_S = 45.0
"""Longer than the parts of a killed launcher live on, on a busy host."""
OVER_PORTS = {"network.telemetry_port": 20_000}
"""Where a port is chosen, the parts talk over ports."""
STARTS = 8
"""A run that is not complete after so many is never."""
STILL_GOING_ON = "is still going on"


@dataclass(frozen=True)
class Plan:
    """What is done in a trial: the same for the same seed and number."""

    settings: Mapping[str, Any]
    strikes: Sequence[Strike]
    ranks_later: int | None
    """With which the run is resumed; None for as many as before."""
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
    if chance.random() < 0.3 or any(strike.kind is Kind.LINK_DOWN for strike in strikes):
        settings |= OVER_PORTS
    return Plan(settings, strikes, chance.choice((None, None, 1, 2)), at_once=chance.random() < 0.5)


def make_dozen() -> Plan:
    """Return a plan of a dozen strikes that share one run: some end it, most it must survive.

    Each that ends the run finds it scanning, slowly, so that the next start has frames left to be struck at.
    """
    strikes = [
        _strike_at(Moment.STARTED, Kind.BROKEN_MESSAGES),
        _strike_at(Moment.SCANNING, Kind.STOP, Victim.EDGE),
        _strike_at(Moment.SCANNING, Kind.LINK_DOWN),
        _strike_at(Moment.SCANNING, Kind.KILL, Victim.LAUNCHER, Victim.WATCHDOG),
        _strike_at(Moment.SCANNING, Kind.KILL, Victim.WATCHDOG),
        _strike_at(Moment.SCANNING, Kind.STOP, Victim.ACQUISITION),
        _strike_at(Moment.SCANNING, Kind.INTERRUPT, Victim.LAUNCHER),
        _strike_at(Moment.LEARNING, Kind.FULL_DISK),
        _strike_at(Moment.LEARNING, Kind.STOP, Victim.TRAINER),
        _strike_at(Moment.LEARNING, Kind.STOP, Victim.LAUNCHER),
        _strike_at(Moment.LEARNING, Kind.KILL, Victim.RANK),
        _strike_at(Moment.LEARNT, Kind.BROKEN_MESSAGES),
    ]
    apart = [strike for strike in strikes if is_apart() or strike.kind not in APART]
    settings = {"trainer.ranks": 1, "dashboard.enabled": False, "acquisition.rate_hz": DOZEN_RATE_HZ, **OVER_PORTS}
    return Plan(settings, apart, ranks_later=2, at_once=True)


def _strike_at(moment: Moment, kind: Kind, *victims: Victim) -> Strike:
    return Strike(kind, frozenset(victims), moment, delay_s=0.1, lasts_s=0.5, seed=0)


def carry_out(plan: Plan, folder: Path) -> Outcome:
    """Carry out a trial in a folder, which stays if a fault was found."""
    if is_apart():
        mount_small_disk(folder, DISK_BYTES)
    else:
        folder.mkdir(parents=True)
    outcome, strikes = Outcome(), list(plan.strikes)
    try:
        _carry_out(plan, strikes, folder, outcome)
    finally:
        outcome.blows += map(Blow, strikes)
        kept = folder.with_suffix(".failed")
        if outcome.faults:
            shutil.copytree(folder, kept, ignore_dangling_symlinks=True)
        if is_apart():
            unmount(folder)
        shutil.rmtree(folder)
    return outcome


def _carry_out(plan: Plan, strikes: list[Strike], folder: Path, outcome: Outcome) -> None:
    run = Run(folder / "run", plan.settings)
    while outcome.starts < STARTS and not outcome.hung:
        outcome.starts += 1
        run.start(ranks=plan.ranks_later)
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
    """Deliver strikes while the run is there; those that were delivered are taken off the list."""
    blows = []
    while strikes and run.wait_for(strikes[0].moment, strikes[0].delay_s):
        blows.append(deliver(strikes.pop(0), run))
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
