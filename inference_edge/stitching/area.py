"""Rectangles of an image that grows: where it is covered, and what of it has changed."""

from __future__ import annotations

from typing import NamedTuple


class Area(NamedTuple):
    """Pixels from (top, left) up to and without (bottom, right), in the coordinates of `position_px`."""

    top: int
    left: int
    bottom: int
    right: int

    def __bool__(self) -> bool:
        return self.bottom > self.top and self.right > self.left

    @property
    def origin_px(self) -> tuple[int, int]:
        """(y, x) of the first pixel."""
        return self.top, self.left

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        """How many it holds."""
        return (self.bottom - self.top) * (self.right - self.left)

    def holds(self, other: Area) -> bool:
        """Whether all of `other` lies within."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )

    def union(self, other: Area) -> Area:
        """Return the smallest area that holds both."""
        if not (self and other):
            return self or other
        return Area(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def widened(self, margin_px: int) -> Area:
        """Return this area with a margin on all sides."""
        return Area(self.top - margin_px, self.left - margin_px, self.bottom + margin_px, self.right + margin_px)

    def slices(self, origin_px: tuple[int, int]) -> tuple[slice, slice]:
        """Return what cuts this area out of an array whose pixel (0, 0) lies at `origin_px`."""
        y, x = origin_px
        return slice(self.top - y, self.bottom - y), slice(self.left - x, self.right - x)


NOWHERE = Area(0, 0, 0, 0)


class Changes:
    """Collects what changed until somebody asks for it."""

    def __init__(self) -> None:
        self._area = NOWHERE

    def include(self, area: Area) -> None:
        """Note that `area` changed."""
        self._area = self._area.union(area)

    def pop(self) -> Area:
        """Return what changed since this was last called; an empty area if nothing did."""
        changed, self._area = self._area, NOWHERE
        return changed
