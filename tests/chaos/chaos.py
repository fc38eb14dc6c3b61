"""Runs under random strikes: `python tests/chaos/chaos.py --trials 200 --seed 1 --work DIR`.

Each trial is a small real run by the command, with one to three strikes at random moments of its life, that is resumed
until it is complete. Then every frame must have been learnt from and imaged exactly once, and nothing be left behind.
A seed and a number repeat a trial (`--only NUMBER`). Called again with the same folder, it goes on where it was.
Exit status 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apart import go_apart, is_apart
from trial import Outcome, Plan, carry_out, make_dozen, make_plan

COLUMNS = ("strikes", "landed", "balanced", "hung", "left behind", "not once", "other")


def main(arguments: Sequence[str]) -> int:
    """Carry out the trials that are missing, and print what came of all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="carry out this trial alone")
    parser.add_argument("--dozen", action="store_true", help="carry out a dozen strikes at one run instead")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and results")
    chosen = parser.parse_args(arguments)
    if (reason := go_apart()) is not None:
        print(f"without full disks and links that are down, and less is seen of what is left behind: {reason}")
    if chosen.dozen:
        return _report([_carry_out(make_dozen(), "dozen", chosen.work)])
    results = chosen.work / f"trials-{chosen.seed}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {one["number"]: one for one in _read(results)}
    numbers = range(chosen.trials) if chosen.only is None else [chosen.only]
    for number in numbers:
        if number not in done:
            plan = make_plan(chosen.seed, number)
            done[number] = {"number": number} | _carry_out(plan, f"{chosen.seed}-{number}", chosen.work)
            with results.open("a") as file:
                file.write(json.dumps(done[number]) + "\n")
    return _report([done[number] for number in numbers])


def _carry_out(plan: Plan, name: str, work: Path) -> dict[str, Any]:
    print(f"trial {name}: {'; '.join(map(str, plan.strikes))}; {dict(plan.settings)}", flush=True)
    began_s = time.monotonic()
    outcome = carry_out(plan, work / f"trial-{name}")
    seconds = time.monotonic() - began_s
    print(f"  {outcome.starts} starts, {seconds:.0f} s; {'; '.join(outcome.faults) or 'everything held'}", flush=True)
    return {"name": name, "seconds": seconds, "apart": is_apart(), **_as_json(outcome)}


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome) | {
        "blows": [
            {
                "kind": blow.strike.kind,
                "target": blow.strike.target,
                "moment": blow.strike.moment,
                "landed": blow.landed,
                "struck": sorted(blow.struck),
            }
            for blow in outcome.blows
        ]
    }


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _report(trials: Sequence[dict[str, Any]]) -> int:
    """Print the strikes by kind and victim with what came of their trials; return the exit status."""
    rows: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
    for trial in trials:
        for blow in trial["blows"]:
            row = rows[f"{blow['kind']} {blow['target']}"]
            for column, value in enumerate([1, *_counts(trial)] if blow["landed"] else [1]):
                row[column] += value
    print(f"{'':36}" + "".join(f"{name:>13}" for name in COLUMNS))
    for name in sorted(rows):
        print(f"{name:36}" + "".join(f"{value:13}" for value in rows[name]))
    print(f"{'all':36}" + "".join(f"{sum(values):13}" for values in zip(*rows.values(), strict=True)))
    failed = [trial for trial in trials if any(_faults(trial))]
    print(f"{len(trials)} trials with {sum(trial['starts'] for trial in trials)} starts, {len(failed)} failed")
    for trial in failed:
        print(f"trial {trial['name']}: {'; '.join(_faults(trial))[:2000]}")
    return 1 if failed else 0


def _counts(trial: dict[str, Any]) -> list[int]:
    """Return what stands in the row of a strike that has landed."""
    hung, left, twice, other = (bool(trial[key]) for key in ("hung", "left_behind", "not_once", "otherwise"))
    balanced = not (trial["unbalanced"] or hung)
    return [1, int(balanced), int(hung), int(left), int(twice), int(other)]


def _faults(trial: dict[str, Any]) -> Iterable[str]:
    keys = ("hung", "left_behind", "unbalanced", "not_once", "otherwise")
    return [fault for key in keys for fault in trial[key]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
