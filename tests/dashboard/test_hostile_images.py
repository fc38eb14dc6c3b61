"""Well-formed events with any arrays: the page goes on, and what it is told stays JSON."""

from __future__ import annotations

import json
import math
import random
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from speaking import telemetry

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.codec import DTYPES
from ptychoflow.streaming.events import (
    AnyEvent,
    FrameTaken,
    MosaicArea,
    MosaicImage,
    MosaicKind,
    PerspectiveStarted,
    PositionsTaken,
)

WHOLE = [0, 1, 2, 3, 5, -1, 10**9, -(10**9), 2**53, -(2**53)]
FIGURES = [0.0, 1.0, 3.5, math.nan, math.inf, -math.inf, 1e308, -1e308]
SHAPES = [(), (0,), (3,), (3, 2), (2, 3), (0, 2), (2, 0), (1, 1), (4, 5), (0, 2**30), (1, 3, 3), (0, 3, 3), (1,) * 6]
ARRAYS = ("amplitude", "phase", "positions_px", "indices", "probe", "diffraction")


class Stranger:
    """Makes events up."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def event(self) -> AnyEvent:
        whole, figure = (lambda: self._chance.choice(WHOLE)), (lambda: self._chance.choice(FIGURES))
        perspective, kind = self._chance.choice([0, 1, 10**9]), self._chance.choice(list(MosaicKind))
        revision = self._chance.randrange(4)
        origin, pixels, size = (whole(), whole()), (figure(), figure()), (whole(), whole())
        return self._chance.choice(
            [
                MosaicImage(perspective, kind, whole(), (figure(), figure()), pixels, revision, whole()),
                MosaicImage(perspective, kind, 1, (0.0, 1.0), (1e-9, 1e-9), revision),
                MosaicArea(perspective, kind, whole(), origin, (whole(), whole()), size, revision),
                PerspectiveStarted(perspective, figure()),
                PositionsTaken(perspective),
                FrameTaken(perspective, whole(), whole()),
            ]
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {name: self._array() for name in ARRAYS if self._chance.random() < 0.9}
        if self._chance.random() < 0.6:
            arrays["amplitude"] = arrays["phase"] = np.zeros((3, 4), self._chance.choice(sorted(DTYPES)))
        return arrays

    def _array(self) -> npt.NDArray[Any]:
        array = np.zeros(self._chance.choice(SHAPES), self._chance.choice(sorted(DTYPES)))
        if array.size and array.dtype.kind in "fc":
            array.flat[self._chance.randrange(array.size)] = self._chance.choice([math.nan, math.inf, -math.inf, 6e4])
        return array


def refuse(constant: str) -> None:
    pytest.fail(f"the page was told {constant}, which is no JSON")


@pytest.mark.parametrize("seed", range(8))
def test_no_event_with_arrays_crashes_the_page(seed: int) -> None:
    stranger = Stranger(seed)
    for _ in range(25):
        page = DashboardState("night", DashboardSettings())
        for _ in range(40):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                page.apply(telemetry(stranger.event()), stranger.arrays())
        update, _ = page.update(StateCursor(), now_s=0.0)
        json.loads(update.model_dump_json(), parse_constant=refuse)


def page_with_an_image() -> DashboardState:
    page = DashboardState("night", DashboardSettings())
    page.apply(telemetry(MosaicImage(0, MosaicKind.REFRESHED, 1, (0.0, 0.0), (1e-9, 1e-9), 1)), pictures((2, 3)))
    return page


def pictures(shape: tuple[int, ...], dtype: str = "float32") -> dict[str, npt.NDArray[Any]]:
    return {"amplitude": np.ones(shape, dtype), "phase": np.ones(shape, dtype)}


@pytest.mark.parametrize(
    ("event", "arrays"),
    [
        (MosaicArea(0, MosaicKind.REFRESHED, 2, (0, 0), (0, 0), (-4, -5), 2), pictures((2, 3))),
        (MosaicArea(0, MosaicKind.REFRESHED, 2, (0, 0), (0, 0), (0, 2**53), 2), pictures((2, 3))),
        (MosaicImage(0, MosaicKind.REFRESHED, 2, (math.nan, 0.0), (1e-9, 1e-9)), pictures((2, 3))),
        (MosaicImage(0, MosaicKind.REFRESHED, 2, (0.0, 0.0), (1e-9, math.inf)), pictures((2, 3))),
        (MosaicImage(0, MosaicKind.REFRESHED, 2, (0.0, 0.0), (1e-9, 1e-9)), pictures((2, 3), "complex64")),
        (
            MosaicImage(0, MosaicKind.REFRESHED, 2, (0.0, 0.0), (1e-9, 1e-9)),
            pictures((2, 3)) | {"phase": np.ones((3, 3), np.float32)},
        ),
    ],
    ids=["negative size", "no height", "nowhere", "infinite pixels", "complex", "two shapes"],
)
def test_an_image_that_cannot_be_shown_leaves_the_one_before(
    event: AnyEvent, arrays: dict[str, npt.NDArray[Any]]
) -> None:
    page = page_with_an_image()
    page.apply(telemetry(event), arrays)
    assert page.images(0)[MosaicKind.REFRESHED].info.model_version == 1


@pytest.mark.parametrize("indices", [None, [1], [[1, 2]], [1.0, 2.0]], ids=["none", "too few", "two axes", "no whole"])
def test_positions_that_do_not_say_whose_they_are_leave_the_path(indices: list[Any] | None) -> None:
    page = DashboardState("night", DashboardSettings())
    page.apply(telemetry(PerspectiveStarted(0, 0.0)), {"positions_px": np.zeros((0, 2), np.float32)})
    taken = {} if indices is None else {"indices": np.array(indices)}
    page.apply(telemetry(PositionsTaken(0)), taken | {"positions_px": np.zeros((2, 2), np.float32)})
    path = page.path(0)
    assert path is not None
    assert len(path.positions_px) == len(path.indices) == 0


def test_a_probe_that_is_none_leaves_the_path() -> None:
    page = DashboardState("night", DashboardSettings())
    arrays = {"positions_px": np.zeros((4, 2), np.float32), "probe": np.zeros((4,), np.int8)}
    page.apply(telemetry(PerspectiveStarted(0, 0.0)), arrays)
    path = page.path(0)
    assert path is not None
    assert path.probe is None
    assert len(path.positions_px) == 4
