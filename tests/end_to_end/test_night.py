"""A short night: detector and PandA are killed and started again, two series broken off, and the ledger balances."""

from __future__ import annotations

from pathlib import Path

from night import Night, require_balance


def test_a_short_night(tmp_path: Path) -> None:
    killed = ("detector", "positions")
    night = Night(tmp_path, 9, 40, 2, killed, end_after_idle_s=6.0, pauses_s=(0.2, 0.6), looked_at=())
    summary = night.pass_it()
    require_balance(summary, night)
    assert night.restarts == ["detector killed", "positions killed"]
    assert 0 < summary["frames"]["acquired"] < night.series * night.frames
