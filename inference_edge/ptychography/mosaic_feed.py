"""Stitched images for the dashboard: the whole now and then, and between only what has changed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.area import Area, Changes
from ptychoflow.inference_edge.stitching.mosaic import Mosaic
from ptychoflow.streaming.events import MosaicArea, MosaicImage, MosaicKind
from ptychoflow.streaming.telemetry import TelemetrySender

LARGE_SHARE = 0.5
"""Above this share of the image, the whole is as good as what changed."""


@dataclass
class _Shown:
    mosaic: Mosaic
    changes: Changes
    revision: int
    whole_at_s: float


class MosaicFeed:
    """Sends stitched images; a viewer that joins late or misses one has the whole again after `whole_period_s`.

    Args:
        telemetry: where images go.
        whole_period_s: seconds between whole images of what keeps changing.
    """

    def __init__(self, telemetry: TelemetrySender, *, whole_period_s: float) -> None:
        self._telemetry, self._whole_period_s = telemetry, whole_period_s
        self._shown: dict[tuple[int, MosaicKind], _Shown] = {}

    def send(
        self, perspective: Perspective, kind: MosaicKind, *, pixel_size_m: tuple[float, float], whole: bool
    ) -> None:
        """Send what has changed since the last time; all of the image if `whole`, and the first time."""
        rendering = perspective.rendering(kind)
        shown = self._follow(perspective, kind)
        shown.revision += 1
        area = shown.changes.pop()
        version, now_s = max(rendering.versions), time.monotonic()
        if whole or now_s - shown.whole_at_s >= self._whole_period_s or _is_large(area, rendering.whole.covered):
            shown.whole_at_s = now_s
            image = rendering.whole.image()
            event: MosaicImage | MosaicArea = MosaicImage(
                perspective.index, kind, version, image.origin_px, pixel_size_m, shown.revision
            )
        else:
            image = rendering.whole.image(area)
            covered = rendering.whole.covered
            event = MosaicArea(
                perspective=perspective.index,
                kind=kind,
                model_version=version,
                origin_px=area.origin_px,
                image_origin_px=covered.origin_px,
                image_shape_px=covered.shape_px,
                revision=shown.revision,
            )
        self._telemetry.send(event, {"amplitude": image.amplitude, "phase": image.phase})

    def forget(self, perspective: int) -> None:
        """Let go of a perspective that no longer changes."""
        self._shown = {key: shown for key, shown in self._shown.items() if key[0] != perspective}

    def _follow(self, perspective: Perspective, kind: MosaicKind) -> _Shown:
        key, mosaic = (perspective.index, kind), perspective.rendering(kind).whole
        shown = self._shown.get(key)
        if shown is None or shown.mosaic is not mosaic:
            revision = 0 if shown is None else shown.revision
            shown = _Shown(mosaic, mosaic.watch(), revision, whole_at_s=-float("inf"))
            self._shown[key] = shown
        return shown


def _is_large(area: Area, covered: Area) -> bool:
    (height, width), (covered_height, covered_width) = area.shape_px, covered.shape_px
    return height * width > LARGE_SHARE * covered_height * covered_width
