"""A short night: the detector is killed and started again, two series broken off, and the ledger balances."""

from __future__ import annotations

from pathlib import Path

from night import Night, require_balance


def test_a_short_night(tmp_path: Path) -> None:
    # Where both sides are away at once, times alone cannot always tell whose positions are whose.
    night = Night(
        tmp_path,
        9,
        40,
        2,
        ("detector",),
        end_after_idle_s=6.0,
        pauses_s=(0.2, 0.6),
        looked_at=(),
        settings={"trainer.pace": "stream"},
    )
    summary = night.pass_it()
    require_balance(summary, night)
    assert night.restarts == ["detector killed"]
    assert 0 < summary["frames"]["acquired"] < night.series * night.frames
