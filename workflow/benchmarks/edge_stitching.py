"""Patches stitched a second, with one thread and with two, beside what moving the same bytes takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numba
import numpy as np

from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.inference_edge.stitching.row_owners import ONE_OWNER, RowOwners
from ptychoflow.inference_edge.stitching.spreading import LAYERS, blank_canvas
from ptychoflow.streaming.device import available_processors
from ptychoflow.workflow.benchmarks.beamline import STEP_PX
from ptychoflow.workflow.benchmarks.paired_rounds import PairedRounds, Took, measure_pairs, spread, timed
from ptychoflow.workflow.target import make_target

PATCHES_AT_ONCE = 64
ROW_PATCHES = 64
ROUNDS = 15
PATCHES = {64: 4096, 128: 1024}
"""Per round, by their size."""
TARGETS_PER_S = {64: 100_000.0, 128: 30_000.0}
"""By processor time, so for one whole core."""
TWO_THREADS = 1.8
"""How much more than `TARGETS_PER_S` two threads should do, by the clock, or as much as two threads with an image each
do: these share nothing, so that more is not to be had where two processors are one core, or others use them."""


def bench_stitching() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return results and targets; takes about 15 s."""
    results, targets = [], []
    for patch_px, patches in PATCHES.items():
        scan = _Scan(patch_px, patches)
        case: dict[str, Any] = {"stitched_patch_px": patch_px, "patches_at_once": PATCHES_AT_ONCE}
        memory = measure_pairs(scan.stitch, scan.move, rounds=ROUNDS)
        results.append(case | {"threads": 1} | _figures(memory, bare="memory"))
        per_core_s = spread(took.items / took.cpu_s for took in memory.ours).lower
        limit_per_core_s = spread(took.items / took.cpu_s for took in memory.bare).lower
        target_per_s = min(TARGETS_PER_S.get(patch_px, limit_per_core_s), limit_per_core_s)
        targets.append(make_target(f"edge_stitched_{patch_px}px_patches_per_core_s", per_core_s, target_per_s, "min"))
        if available_processors() > 1:
            with closing(RowOwners(2)) as owners, ThreadPoolExecutor(2) as pool:
                shared = measure_pairs(partial(scan.stitch, owners), partial(scan.stitch_apart, pool), rounds=ROUNDS)
            results.append(case | {"threads": 2} | _figures(shared, bare="two_images"))
            per_s, limit_per_s = (
                spread(took.items / took.wall_s for took in some).lower for some in (shared.ours, shared.bare)
            )
            name = f"edge_stitched_{patch_px}px_patches_per_s_two_threads"
            targets.append(make_target(name, per_s, min(TWO_THREADS * target_per_s, limit_per_s), "min"))
    return results, targets


def _figures(pairs: PairedRounds, *, bare: str) -> dict[str, Any]:
    return {name.replace("bare", bare): value for name, value in pairs.figures("patches").items()}


class _Scan:
    """Patches with amplitude and phase, along a raster."""

    def __init__(self, patch_px: int, patches: int) -> None:
        random = np.random.default_rng(0)
        shape = (PATCHES_AT_ONCE, patch_px, patch_px)
        # as many as a network gives at once: its output is still in the cache
        self._amplitude, self._phase = (random.uniform(0, 3, shape).astype(np.float32) for _ in range(2))
        rows, columns = np.divmod(np.arange(patches), ROW_PATCHES)
        self._positions_px = np.stack([rows, columns], axis=1) * STEP_PX
        corners = np.floor(self._positions_px).astype(np.int64)
        self._parts = [slice(start, start + PATCHES_AT_ONCE) for start in range(0, patches, PATCHES_AT_ONCE)]
        self._corners = corners
        height, width = corners.max(axis=0) + patch_px + 1
        self._sums, self._coverage, _ = blank_canvas(LAYERS, (height, width))

    def stitch(self, owners: RowOwners = ONE_OWNER) -> Took:
        """Stitch all patches into one image."""
        mosaic = Mosaic(owners)
        mosaic.stitch(place_patches(self._amplitude[:2], self._phase[:2], self._positions_px[[0, -1]]))

        def work() -> None:
            for some in self._parts:
                mosaic.stitch(place_patches(self._amplitude, self._phase, self._positions_px[some]))
            owners.settle()

        return timed(work, items=len(self._positions_px))

    def stitch_apart(self, pool: ThreadPoolExecutor) -> Took:
        """Stitch two halves of the patches into an image each, at the same time."""
        mosaics = Mosaic(), Mosaic()
        for mosaic in mosaics:
            mosaic.stitch(place_patches(self._amplitude[:2], self._phase[:2], self._positions_px[[0, -1]]))

        def half(mosaic: Mosaic, parts: list[slice]) -> None:
            for some in parts:
                mosaic.stitch(place_patches(self._amplitude, self._phase, self._positions_px[some]))

        middle = len(self._parts) // 2
        halves = self._parts[:middle], self._parts[middle:]
        return timed(lambda: list(pool.map(half, mosaics, halves)), items=len(self._positions_px))

    def move(self) -> Took:
        """Read the same patches and change the same pixels of a canvas, with next to no arithmetic."""

        def work() -> None:
            for some in self._parts:
                _move(self._sums, self._coverage, self._amplitude, self._phase, self._corners[some])

        return timed(work, items=len(self._positions_px))


@numba.njit(nogil=True, cache=True)
def _move(sums: Any, coverage: Any, amplitude: Any, phase: Any, corners: Any) -> None:
    count, height, width = phase.shape
    _, canvas_height, canvas_width = sums.shape
    totals, covered, sizes, angles = sums.reshape(-1), coverage.reshape(-1), amplitude.reshape(-1), phase.reshape(-1)
    layer, columns = np.uint64(canvas_height * canvas_width), np.uint64(width)
    for n in range(count):
        top, left = corners[n]
        for y in range(height):
            source, target = np.uint64((n * height + y) * width), np.uint64((top + y) * canvas_width + left)
            _add(angles, source, totals, target, columns)
            _add(angles, source, totals, target + layer, columns)
            _add(sizes, source, totals, target + layer + layer, columns)
            _count(covered, target, columns)


@numba.njit(nogil=True, cache=True)
def _add(values: Any, source: Any, totals: Any, target: Any, columns: Any) -> None:
    for x in range(columns):
        totals[target + x] += values[source + x]


@numba.njit(nogil=True, cache=True)
def _count(covered: Any, target: Any, columns: Any) -> None:
    for x in range(columns):
        covered[target + x] += 1
