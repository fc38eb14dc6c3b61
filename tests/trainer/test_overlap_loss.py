"""What patches leave unexplained of their frames, beside a plain computation and the edge's score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.pipelines.ptychography.overlap_loss import LEAST_WEIGHT, overlap_loss

AXES = (-2, -1)
FRAME_PX, MODES = (12, 10), 2
RNG = np.random.default_rng(0)
PROBE = (RNG.normal(size=(MODES, *FRAME_PX)) + 1j * RNG.normal(size=(MODES, *FRAME_PX))).astype(np.complex64)
MASK = RNG.random(FRAME_PX) < 0.2


def shifted(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.fft.ifftshift(values, axes=AXES))


def patches_of(obj: np.ndarray) -> Patches:
    return Patches(torch.from_numpy(np.abs(obj).astype(np.float32)), torch.from_numpy(np.angle(obj).astype(np.float32)))


def object_of(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.uniform(0.5, 1.5, shape) * np.exp(1j * RNG.uniform(-3.0, 3.0, shape))


def frames_of(windows: np.ndarray) -> np.ndarray:
    """Return noiseless counts of what is under each frame, zero frequency in the middle."""
    waves = np.fft.fft2(np.fft.ifftshift(PROBE * windows[:, None], axes=AXES), norm="ortho")
    return np.fft.fftshift((np.abs(waves) ** 2).sum(axis=1), axes=AXES)


@pytest.mark.parametrize("target_px", [FRAME_PX, (6, 6), (5, 7)])
@pytest.mark.parametrize("mask", [None, MASK])
def test_of_a_single_patch_it_is_the_score_of_the_edge(target_px, mask):
    obj, counts = object_of((1, *target_px)), RNG.poisson(5.0, (1, *FRAME_PX)).astype(np.float32)
    expected = forward_residuals(counts, np.abs(obj), np.angle(obj), PROBE, mask)
    got = overlap_loss(
        patches_of(obj),
        torch.zeros(1, 2, dtype=torch.int64),
        shifted(np.sqrt(counts)),
        shifted(PROBE),
        None if mask is None else shifted(~mask),
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)


def test_patches_of_one_object_explain_all_and_a_phase_that_is_the_same_everywhere_makes_no_difference():
    obj, corners = object_of((20, 21)), np.array([[0, 0], [3, 5], [8, 0], [8, 11], [2, 9]])
    windows = np.stack([obj[y : y + FRAME_PX[0], x : x + FRAME_PX[1]] for y, x in corners])
    roots, positions = shifted(np.sqrt(frames_of(windows)).astype(np.float32)), torch.from_numpy(corners)
    for phase in (1.0, np.exp(1.2j)):
        loss = overlap_loss(patches_of(windows * phase), positions, roots, shifted(PROBE))
        np.testing.assert_allclose(loss.numpy(), 0.0, atol=1e-5)
    other = windows.copy()
    other[1] *= np.exp(2.0j)
    contradicting = overlap_loss(patches_of(other), positions, roots, shifted(PROBE))
    assert (contradicting > 0.01).all(), "every frame overlaps with the one that contradicts"
    alone = overlap_loss(patches_of(other[1:2]), positions[:1], roots[1:2], shifted(PROBE))
    assert alone.item() < 1e-5


def test_overlapping_patches_are_averaged_by_the_light_on_them():
    target = (4, 4)
    first, second = object_of(target), object_of(target)
    corners = np.array([[0, 1], [2, 0]])
    light = (np.abs(PROBE) ** 2).sum(axis=0)[4:8, 3:7]
    weight = light / (np.abs(PROBE) ** 2).sum(axis=0).max() + LEAST_WEIGHT
    obj, weights = np.zeros((6, 5), complex), np.zeros((6, 5))
    for patch, (y, x) in zip((first, second), corners, strict=True):
        obj[y : y + 4, x : x + 4] += patch * weight
        weights[y : y + 4, x : x + 4] += weight
    obj = np.where(weights > 0, obj / np.where(weights > 0, weights, 1.0), 1.0)
    around = np.pad(obj, [(4, 4), (3, 3)], mode="edge")
    windows = np.stack([around[y : y + FRAME_PX[0], x : x + FRAME_PX[1]] for y, x in corners])
    roots = shifted(np.sqrt(frames_of(windows)).astype(np.float32))
    loss = overlap_loss(patches_of(np.stack([first, second])), torch.from_numpy(corners), roots, shifted(PROBE))
    np.testing.assert_allclose(loss.numpy(), 0.0, atol=1e-5)


def test_its_gradient_is_finite_where_the_model_or_the_frame_is_dark():
    dark = torch.zeros(MODES, *FRAME_PX, dtype=torch.complex64)
    dark[0, 0, 0] = 1.0
    phase = torch.zeros(2, 6, 6, requires_grad=True)
    roots = torch.zeros(2, *FRAME_PX)
    roots[0, 0, 0] = 1.0
    corners = torch.tensor([[0, 0], [1, 1]])
    overlap_loss(Patches(torch.ones(2, 6, 6), phase), corners, roots, dark).sum().backward()
    assert phase.grad is not None
    assert phase.grad.isfinite().all()
