"""Stitching on the CPU beside the same sums on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup, Unmet

LAYERS = 4


def stitching(setup: Setup) -> Figures:
    """Add patches to a canvas, with the edge's own code and as one indexed addition on the device."""
    count, side, extent = (16, 16, 100) if setup.short else (256, 128, 900)
    random = np.random.default_rng(0)
    amplitude = random.uniform(0.5, 1.0, (count, side, side)).astype(np.float32)
    phase = random.uniform(-1.0, 1.0, (count, side, side)).astype(np.float32)
    placed = place_patches(amplitude, phase, random.uniform(0, extent, (count, 2)))
    mosaic = Mosaic()
    ours_ms = setup.milliseconds(lambda: mosaic.stitch(placed), repeats=5)
    corners = torch.from_numpy(placed.corners_px - placed.corners_px.min(axis=0)).to(setup.device)
    beyond = torch.from_numpy(placed.beyond_px).to(setup.device)
    width = extent + 2 * side
    canvas = torch.zeros(width * width, LAYERS, device=setup.device)
    layers = torch.from_numpy(amplitude).to(setup.device), torch.from_numpy(phase).to(setup.device)
    repeats = 20 if setup.device.type == "cuda" else 2
    device_ms = setup.milliseconds(lambda: _add(canvas, *layers, corners, beyond), repeats=repeats)
    canvas.zero_()
    _add(canvas, *layers, corners, beyond)
    once = Mosaic()
    once.stitch(placed)
    image = once.image()
    top, left = placed.corners_px.min(axis=0)
    row, column = image.origin_px[0] - int(top), image.origin_px[1] - int(left)
    height, breadth = image.amplitude.shape
    weights = canvas.view(width, width, LAYERS)[row : row + height, column : column + breadth].cpu()
    covered = torch.from_numpy(image.coverage > 0) & (weights[..., 3] > 1e-3)
    mean = (weights[..., 0] / weights[..., 3])[covered]
    off = float((mean - torch.from_numpy(image.amplitude)[covered]).abs().max())
    figures = {
        "patch_px": side,
        "numba_patches_per_s": 1000 * count / ours_ms,
        "device_patches_per_s": 1000 * count / device_ms,
        "amplitude_off": off,
    }
    if not off < 1e-3:
        raise Unmet(f"the device stitches another image, {off:.4f} off", figures)
    return figures


def _add(canvas: Tensor, amplitude: Tensor, phase: Tensor, corners: Tensor, beyond: Tensor) -> None:
    """Shift every patch to whole pixels, then add all of them at once; each pixel of a patch goes to one place."""
    side = amplitude.shape[-1]
    width = int(canvas.shape[0] ** 0.5)
    layers = torch.stack([amplitude, phase.cos(), phase.sin(), torch.ones_like(amplitude)], dim=1)
    padded = nn.functional.pad(layers, (1, 1, 1, 1))
    down, right = (beyond[:, axis].view(-1, 1, 1, 1) for axis in (0, 1))
    rows = padded[:, :, 1:] * (1 - down) + padded[:, :, :-1] * down
    shifted = rows[..., 1:] * (1 - right) + rows[..., :-1] * right
    places = torch.arange(side + 1, device=canvas.device)
    grid = (places[:, None] * width + places[None]).view(1, -1)
    starts = (corners[:, 0] * width + corners[:, 1]).view(-1, 1)
    canvas.index_add_(0, (starts + grid).view(-1), shifted.permute(0, 2, 3, 1).reshape(-1, LAYERS))
