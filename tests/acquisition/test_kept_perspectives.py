"""Frames of perspectives that are kept for who hands them over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from acquisition_runs import SOURCE, run_acquisition
from disk_calls import DiskCalls

from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.events import WarningRaised
from ptychoflow.streaming.kept_perspective import KEPT_AT_ONCE, About, keep_perspective, kept_perspectives, read_kept
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings


def test_an_acquisition_keeps_the_frames_of_the_last_perspectives_and_says_which_are_lost(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptychoflow.streaming.kept_perspective.KEPT_AT_ONCE", 2)
    source = SOURCE.model_copy(update={"perspectives": 4})
    outcome = run_acquisition(network, tmp_path / "run", source=source, keep_frames=True)
    folders = kept_perspectives(RunFolder(tmp_path / "run").kept_perspectives)
    assert [folder.name for folder in folders] == ["0002", "0003"]
    scan = open_scan(source)
    for folder in folders:
        kept, expected = read_kept(folder), scan.perspective(int(folder.name))
        assert kept.about.angle_deg == pytest.approx(expected.angle_deg)
        assert kept.about.detector_distance_m == expected.geometry.detector_distance_m
        np.testing.assert_array_equal(kept.positions_px, expected.positions_px)
        np.testing.assert_array_equal(kept.indices, np.arange(len(expected)))
        np.testing.assert_array_equal(kept.stored()[kept.places], expected.read(0, len(expected)))
        assert kept.probe is not None
        assert expected.probe is not None
        np.testing.assert_array_equal(kept.probe, expected.probe)
    lost = [event.text for event in outcome.events if isinstance(event, WarningRaised)]
    assert lost == [f"perspective {index} is not handed over: too many others wait for it" for index in (0, 1)]


def test_nothing_is_kept_unless_somebody_hands_it_over(network: NetworkSettings, tmp_path: Path) -> None:
    run_acquisition(network, tmp_path / "run")
    assert kept_perspectives(RunFolder(tmp_path / "run").kept_perspectives) == []
    assert KEPT_AT_ONCE > 0


def test_perspectives_are_in_the_order_of_their_numbers_however_many_digits_these_have(tmp_path: Path) -> None:
    for name in ("10000", "9999", "0012"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").touch()
    assert [kept.name for kept in kept_perspectives(tmp_path)] == ["0012", "9999", "10000"]


def test_a_kept_perspective_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = tmp_path / "frames"
    frames.write_bytes(bytes(8))
    about = About(3, 0.0, 9000.0, 1.0, (75e-6, 75e-6), (1e-8, 1e-8), (2, 2, 2), "|u1")
    (tmp_path / "kept").mkdir()
    calls = DiskCalls(monkeypatch)
    keep_perspective(tmp_path / "kept", about, frames, {"indices": np.arange(2, dtype=np.int32)})
    before, after = calls.seen[:4], calls.seen[4:]
    assert {name for _, name in before} == {"0003.part", "about.json", "frames", "indices.npy"}
    assert after == [("rename", "0003"), ("fsync", "kept")]
