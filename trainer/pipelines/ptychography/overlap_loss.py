"""How badly predicted patches explain their frames together: a loss that needs no ground truth.

The patches of neighbouring frames are averaged to one object where they overlap, and every frame is explained by what
the object is under it: patches that contradict each other explain nothing. After O. Hoidn et al., "Physics constrained
unsupervised deep learning for rapid, high resolution scanning coherent diffraction reconstruction", Sci. Rep. 13, 22789
(2023), with the share of energy that `ptychoflow.inference_edge.ptychography.residual` scores frames by in place of a
likelihood.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptychoflow.trainer.models.ptychonn import Patches

AXES = (-2, -1)
LEAST_WEIGHT = 1e-3
"""Of a patch's pixel in the average, beside one in the brightest light: the dark ones count where no other is."""
TINY = 1e-12


def overlap_loss(
    patches: Patches, corners_px: Tensor, roots: Tensor, probe: Tensor, looked_at: Tensor | None = None
) -> Tensor:
    """Return the share of each frame's energy that the object of all patches does not explain, float32 (n,).

    The brightness of a frame is fitted. 0 is perfect, 1 is nothing; for a single patch it is the residual.

    Args:
        patches: of neighbouring frames, (n, target y, target x).
        corners_px: where the first pixel of each patch lies, int64 (n, 2) as (y, x); the smallest is 0.
        roots: square roots of the counts, (n, y, x), zero frequency at pixel (0, 0).
        probe: complex (mode, y, x), its centre at pixel (0, 0).
        looked_at: (y, x) with zero frequency at pixel (0, 0), 0 where a pixel is not to be looked at.
    """
    frame_shape_px = roots.shape[1:]
    light = torch.fft.fftshift(probe.abs().square().sum(dim=0), dim=AXES)
    obj = _average(patches, corners_px, light)
    exit_waves = probe * torch.fft.ifftshift(_windows(obj, corners_px, patches, frame_shape_px), dim=AXES)[:, None]
    waves = torch.fft.fft2(exit_waves, norm="ortho")
    # the root's slope is infinite at 0
    modelled = (waves.real.square() + waves.imag.square()).sum(dim=1).add(TINY).sqrt()
    if looked_at is not None:
        modelled, roots = modelled * looked_at, roots * looked_at
    explained, power, energy = (one.sum(dim=AXES) for one in (roots * modelled, modelled.square(), roots.square()))
    return 1.0 - explained.square() / (power * energy).clamp(min=TINY)


def _average(patches: Patches, corners_px: Tensor, light: Tensor) -> Tensor:
    """Return the object (y, x) of overlapping patches, each weighted by the light that falls on it; 1 where none is."""
    count, *patch_shape_px = patches.phase.shape
    height, width = (corners_px.amax(dim=0) + corners_px.new_tensor(patch_shape_px)).tolist()
    rows, columns = (
        corners_px[:, axis, None] + torch.arange(size, device=corners_px.device)
        for axis, size in enumerate(patch_shape_px)
    )
    places = (rows[:, :, None] * width + columns[:, None, :]).reshape(-1)
    start_y, start_x = (whole // 2 - part // 2 for whole, part in zip(light.shape, patch_shape_px, strict=True))
    weight = light[start_y : start_y + patch_shape_px[0], start_x : start_x + patch_shape_px[1]]
    weight = (weight / light.max() + LEAST_WEIGHT).expand(count, -1, -1)
    values = torch.stack([patches.amplitude * patches.phase.cos(), patches.amplitude * patches.phase.sin()], dim=-1)
    summed = values.new_zeros(height * width, 2).index_add(0, places, (values * weight[..., None]).reshape(-1, 2))
    weights = values.new_zeros(height * width).index_add(0, places, weight.reshape(-1))
    covered = weights > 0
    mean = summed / torch.where(covered, weights, 1.0)[:, None]
    mean = torch.where(covered[:, None], mean, mean.new_tensor([1.0, 0.0]))
    return torch.view_as_complex(mean).reshape(height, width)


def _windows(obj: Tensor, corners_px: Tensor, patches: Patches, frame_shape_px: torch.Size) -> Tensor:
    """Return what of the object (y, x) is under each frame, (n, y, x); it goes on as it is at its edge."""
    places = []
    for axis, (whole, part) in enumerate(zip(frame_shape_px, patches.phase.shape[1:], strict=True)):
        before = whole // 2 - part // 2
        reach = torch.arange(whole, device=obj.device) - before
        places.append((corners_px[:, axis, None] + reach).clamp(0, obj.shape[axis] - 1))
    rows, columns = places
    return obj[rows[:, :, None], columns[:, None, :]]
