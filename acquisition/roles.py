"""What each frame is used for: training, validation, held out, or in the gap around what is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.source_settings import HoldOut, RegionEnd, RoleSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.streaming.set_option import set_option

INTERPOLATION_PX = 1.0
"""A patch at a sub-pixel position touches one pixel more than it has."""


class Roles:
    """Deals out the roles of one perspective's frames.

    The choice depends on the arguments alone, so it is the same in every process and after a resume. No patch of
    `target_shape_px` at a TRAIN or VALIDATION position overlaps one at a HELD_OUT position of the same perspective.

    Args:
        settings: what is held out.
        perspective: its index.
        perspectives: how many there will be; None where the source cannot tell.
        positions_px: of all frames (n, 2) as (y, x), where they are known.
        extent_px: lowest and highest position (2, 2), where they are not; None where that is not known either.
        target_shape_px: patches of the network.
        seed: of the run.

    Raises:
        UserError: nothing would be left to train on in the first perspective, or what is to be held out cannot be
            known. A later perspective may be short because it was broken off.
    """

    def __init__(
        self,
        settings: RoleSettings,
        *,
        perspective: int,
        perspectives: int | None,
        positions_px: npt.NDArray[np.float64] | None,
        extent_px: npt.NDArray[np.float64] | None = None,
        target_shape_px: tuple[int, int],
        seed: int,
    ) -> None:
        self._perspective, self._seed = perspective, seed
        self._fraction = settings.validation_fraction
        self._all_held_out = False
        self._region: _Region | None = None
        self.note = ""
        """What a person should know of these roles."""
        if settings.hold_out is HoldOut.LAST_PERSPECTIVE:
            self._all_held_out = perspective == _last_perspective(perspectives)
        elif settings.hold_out is HoldOut.REGION:
            self._region, too_short = _find_region(settings, positions_px, extent_px, target_shape_px)
            if too_short and perspective == 0:
                raise UserError(f"{too_short}; choose a smaller region_fraction, gap_px or target, or the other axis")
            self.note = f"{too_short}: nothing is learnt from it" if too_short else ""

    def assign(self, indices: npt.NDArray[np.integer], positions_px: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """Return the `FrameRole` of frames, uint8 (n,), frame `indices[i]` at `positions_px[i]`."""
        hashes = hash_frame_ids(self._perspective, indices, seed=self._seed)
        # 53 bits are what a float64 holds exactly.
        uniform = (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
        roles = np.where(uniform < self._fraction, FrameRole.VALIDATION, FrameRole.TRAIN).astype(np.uint8)
        if self._all_held_out:
            roles[:] = FrameRole.HELD_OUT
        elif self._region is not None:
            depth = self._region.depth_px(positions_px)
            roles[depth < self._region.excluded_below_px] = FrameRole.EXCLUDED
            roles[depth <= self._region.held_out_to_px] = FrameRole.HELD_OUT
        return roles


def assign_roles(
    settings: RoleSettings,
    positions_px: npt.NDArray[np.float64],
    *,
    perspective: int,
    perspectives: int | None,
    target_shape_px: tuple[int, int],
    seed: int,
) -> npt.NDArray[np.uint8]:
    """Return the roles of all frames of a perspective, uint8 (n,), frame i at `positions_px[i]`; see `Roles`."""
    roles = Roles(
        settings,
        perspective=perspective,
        perspectives=perspectives,
        positions_px=positions_px,
        target_shape_px=target_shape_px,
        seed=seed,
    )
    return roles.assign(np.arange(len(positions_px)), positions_px)


def hash_frame_ids(perspective: int, indices: npt.NDArray[np.integer], *, seed: int) -> npt.NDArray[np.uint64]:
    """Return a hash of each frame id (perspective, index), uint64 (n,), uniform over its range.

    Three rounds of the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014), one for each of the three numbers.
    """
    state = _splitmix64(np.full(len(indices), seed, dtype=np.uint64))
    state = _splitmix64(state ^ np.uint64(perspective))
    return _splitmix64(state ^ indices.astype(np.uint64))


def _splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _last_perspective(perspectives: int | None) -> int:
    if perspectives is None:
        raise UserError(
            "The last perspective cannot be held out: the source cannot tell how many will come; "
            "hold out a region instead"
        )
    if perspectives == 1:
        raise UserError("The last perspective cannot be held out: the scan has only one; hold out a region instead")
    return perspectives - 1


@dataclass(frozen=True)
class _Region:
    """What is held out at one end of the scanned area, and the gap beside it."""

    axis: int
    sign: float
    end_px: float
    """Signed position of that end."""
    held_out_to_px: float
    """Depth from the end."""
    excluded_below_px: float

    def depth_px(self, positions_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        depth: npt.NDArray[np.float64] = self.sign * positions_px[:, self.axis] - self.end_px
        return depth


def _find_region(
    settings: RoleSettings,
    positions_px: npt.NDArray[np.float64] | None,
    extent_px: npt.NDArray[np.float64] | None,
    target_shape_px: tuple[int, int],
) -> tuple[_Region, str]:
    """Return the region, and why it leaves nothing to train on, if so: then all frames beside it are in the gap."""
    known_px = extent_px if positions_px is None else positions_px
    if known_px is None:
        raise UserError(
            "A region cannot be held out: nothing says how far this scan will reach; give its extent, such as "
            f"{set_option('source.extent_m', '[[0,0],[5e-6,5e-6]]')}, or hold out nothing with "
            "--set acquisition.roles.hold_out=none"
        )
    axis = 0 if settings.region_end in {RegionEnd.LOW_Y, RegionEnd.HIGH_Y} else 1
    sign = 1.0 if settings.region_end in {RegionEnd.LOW_Y, RegionEnd.LOW_X} else -1.0
    depth_px = sign * known_px[:, axis]
    end_px = float(depth_px.min())
    depth_px -= end_px
    held_out_to_px = settings.region_fraction * float(depth_px.max())
    # Where positions are not known, one of them may lie just at the region's edge.
    deepest_px = held_out_to_px if positions_px is None else float(depth_px[depth_px <= held_out_to_px].max())
    gap_px = target_shape_px[axis] + INTERPOLATION_PX + settings.gap_px
    if np.any(depth_px >= deepest_px + gap_px):
        return _Region(axis, sign, end_px, held_out_to_px, deepest_px + gap_px), ""
    return _Region(axis, sign, end_px, held_out_to_px, np.inf), (
        f"Nothing is left to train on: the held-out region and its gap of {gap_px:g} px cover the whole scan, "
        f"which is {depth_px.max():.0f} px long"
    )
