"""What each frame is used for: training, validation, held out, or in the gap around what is held out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.source_settings import HoldOut, RegionEnd, RoleSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole

INTERPOLATION_PX = 1.0
"""A patch at a sub-pixel position touches one pixel more than it has."""


def assign_roles(
    settings: RoleSettings,
    positions_px: npt.NDArray[np.float64],
    *,
    perspective: int,
    perspectives: int | None,
    target_shape_px: tuple[int, int],
    seed: int,
) -> npt.NDArray[np.uint8]:
    """Return the `FrameRole` of every frame of one perspective, uint8 (n,), frame i at `positions_px[i]`.

    The choice depends on the arguments alone, so it is the same in every process and after a resume.
    No patch of `target_shape_px` at a TRAIN or VALIDATION position overlaps one at a HELD_OUT position of the
    same perspective. Raises `UserError` when nothing would be left to train on.
    """
    roles = _validation_roles(
        len(positions_px), perspective=perspective, fraction=settings.validation_fraction, seed=seed
    )
    if settings.hold_out is HoldOut.LAST_PERSPECTIVE:
        if perspective == _last_perspective(perspectives):
            roles[:] = FrameRole.HELD_OUT
    elif settings.hold_out is HoldOut.REGION:
        _hold_out_region(roles, settings, positions_px, target_shape_px)
    return roles


def _validation_roles(frames: int, *, perspective: int, fraction: float, seed: int) -> npt.NDArray[np.uint8]:
    hashes = hash_frame_ids(perspective, np.arange(frames), seed=seed)
    # 53 bits are what a float64 holds exactly.
    uniform = (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.where(uniform < fraction, FrameRole.VALIDATION, FrameRole.TRAIN).astype(np.uint8)


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


def _hold_out_region(
    roles: npt.NDArray[np.uint8],
    settings: RoleSettings,
    positions_px: npt.NDArray[np.float64],
    target_shape_px: tuple[int, int],
) -> None:
    axis = 0 if settings.region_end in {RegionEnd.LOW_Y, RegionEnd.HIGH_Y} else 1
    sign = 1.0 if settings.region_end in {RegionEnd.LOW_Y, RegionEnd.LOW_X} else -1.0
    depth = sign * positions_px[:, axis]
    depth -= depth.min()
    held_out = depth <= settings.region_fraction * depth.max()
    gap_px = target_shape_px[axis] + INTERPOLATION_PX + settings.gap_px
    excluded = ~held_out & (depth < depth[held_out].max() + gap_px)
    roles[excluded] = FrameRole.EXCLUDED
    roles[held_out] = FrameRole.HELD_OUT
    if not np.any(roles == FrameRole.TRAIN):
        raise UserError(
            f"Nothing is left to train on: the held-out region and its gap of {gap_px:g} px cover the whole scan, "
            f"which is {depth.max():.0f} px long; choose a smaller region_fraction, gap_px or target, or the other axis"
        )
