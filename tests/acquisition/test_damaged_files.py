"""Damaged files of every format: each is answered, or refused in one line, whatever its bytes say.

The short form of `mutated_files.py`, which does the same by the thousand in processes of its own.
"""

import os
import random
import signal
import threading

import pytest
from damage import KINDS, damage, write_scan
from mutated_files import GOOD, Mutations, Outcome, look_at, try_inspect

MUTATIONS = 24
"""Of each format."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_files_are_answered_or_refused_in_one_line(tmp_path, kind):
    path, settings = write_scan(kind, tmp_path / "scan")
    assert try_inspect(path, settings)[0] is (Outcome.REFUSED if kind == "unknown" else Outcome.ANSWERED)
    originals = {file: file.read_bytes() for file in sorted(path.parent.iterdir())}
    chance = random.Random(kind)
    for _ in range(MUTATIONS):
        victim = chance.choice(list(originals))
        how = damage(victim, chance)
        outcome, said = try_inspect(path, settings)
        assert outcome in GOOD, f"{victim.name}: {how}: {said}"
        victim.write_bytes(originals[victim])


def die(_path, _settings):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_path, _settings):
    threading.Event().wait()


@pytest.mark.parametrize(("way", "outcome"), [(die, Outcome.CRASH), (hang, Outcome.HANG)])
def test_the_long_form_goes_on_after_a_process_that_dies_or_hangs(tmp_path, monkeypatch, way, outcome):
    mutations = Mutations(tmp_path, seed=3)
    whole = list(look_at(mutations, 0, 4))
    assert [number for number, *_ in whole] == list(range(4))
    assert all(one in GOOD for _, one, *_ in whole)
    monkeypatch.setattr("mutated_files.TIME_LIMIT_S", 1.0)
    monkeypatch.setattr("mutated_files.try_inspect", way)
    assert [one for _, one, *_ in look_at(mutations, 0, 3)] == [outcome] * 3
