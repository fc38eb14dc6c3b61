"""Previews of a perspective that is still coming: shown as they grow, and nothing is learnt from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from acquisition_runs import Outcome, run_acquisition

from ptychoflow.acquisition.ptychography import service
from ptychoflow.acquisition.ptychography.previews import Previews
from ptychoflow.acquisition.retrieval.preview import Preview
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import Ending, FrameBatch, OpenEndedPerspective, OpenEndedScan, Perspective
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.events import GroundTruthReady, MosaicImage, MosaicKind
from ptychoflow.streaming.settings import NetworkSettings

SOURCE = SimulationSettings(perspectives=2, frames_per_perspective=64, frame_shape_px=(32, 32), seed=3)
PTYCHI = RetrievalSettings(epochs=2, preview_epochs=2, target_shape_px=(16, 16))


class Coming(OpenEndedPerspective):
    """A perspective whose second half comes when the first has been seen."""

    def __init__(self, whole: Perspective, seen: threading.Event) -> None:
        self.__dict__.update(vars(whole))
        self.ending = Ending.COMPLETE
        self._whole, self._seen = whole, seen

    @property
    def known_positions_px(self) -> None:
        return None

    def batches(self, batch_frames: int) -> Iterator[FrameBatch | None]:
        came = 0
        self._seen.clear()
        for batch in self._whole.batches(batch_frames):
            while came >= len(self._whole) / 2 and not self._seen.is_set():
                yield None
            yield batch
            came += len(batch)


class ComingScan(OpenEndedScan):
    name, notes, perspectives, frames = "coming", [], None, None

    def __init__(self, seen: threading.Event) -> None:
        self._seen = seen

    def arriving(self) -> Iterator[OpenEndedPerspective]:
        for perspective in open_scan(SOURCE):
            yield Coming(perspective, self._seen)


def previews(outcome: Outcome) -> list[tuple[int, MosaicImage]]:
    events = enumerate(outcome.events)
    return [(i, one) for i, one in events if isinstance(one, MosaicImage) and one.kind is MosaicKind.PREVIEW]


def test_what_has_come_is_shown_and_the_ground_truth_is_the_same(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = AcquisitionSettings(batch_frames=16)  # so that half of a perspective can be at hand
    closed = run_acquisition(network, tmp_path / "closed", source=SOURCE, settings=few, retrieval=PTYCHI)
    assert not previews(closed)
    seen, show = threading.Event(), Previews.show

    def show_and_tell(self: Previews, preview: Preview) -> None:
        show(self, preview)
        seen.set()

    monkeypatch.setattr(Previews, "show", show_and_tell)
    monkeypatch.setattr(service, "open_scan", lambda _: ComingScan(seen))
    outcome = run_acquisition(network, tmp_path / "live", source=SOURCE, settings=few, retrieval=PTYCHI)
    assert outcome.samples == closed.samples
    for perspective, (_, phase) in closed.edge.references.items():
        np.testing.assert_array_equal(outcome.edge.references[perspective][1], phase)
    pixel_size_m = open_scan(SOURCE).perspective(0).geometry.object_pixel_size_m
    ready = {one.perspective: i for i, one in enumerate(outcome.events) if isinstance(one, GroundTruthReady)}
    for perspective in range(2):
        shown = [(i, one) for i, one in previews(outcome) if one.perspective == perspective]
        frames = [one.frames for _, one in shown]
        assert frames == sorted(set(frames))
        assert 16 <= frames[0] <= 32
        assert {one.pixel_size_m for _, one in shown} == {pixel_size_m}
        assert max(i for i, _ in shown) < ready[perspective]


def test_no_previews_are_made_where_none_are_wanted(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()
    monkeypatch.setattr(seen, "clear", seen.set)
    monkeypatch.setattr(service, "open_scan", lambda _: ComingScan(seen))
    off = PTYCHI.model_copy(update={"preview_epochs": 0})
    assert not previews(run_acquisition(network, tmp_path, source=SOURCE, retrieval=off))
