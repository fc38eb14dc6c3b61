"""Simulator, file, reader, phase retrieval, patches and stitching agree on orientation, sign and half pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from skimage.registration import phase_cross_correlation

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, StitchedImage, place_patches
from ptychoflow.streaming.messages import GroundTruthSource

Image = npt.NDArray[np.float64]

SIMULATION = SimulationSettings(
    perspectives=1, frames_per_perspective=150, frame_shape_px=(48, 48), overlap=0.75, photons_per_frame=1e7, seed=11
)
VARIANTS = {
    "mirrored along y": lambda phase: phase[::-1],
    "mirrored along x": lambda phase: phase[:, ::-1],
    "turned by 180°": lambda phase: phase[::-1, ::-1],
    "conjugated": lambda phase: -phase,
    "conjugated and turned": lambda phase: -phase[::-1, ::-1],
}


@pytest.fixture(scope="module")
def truth_and_stitched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, Image, StitchedImage]:
    """The simulator's true phase, and what is stitched of the patches that phase retrieval gives for its recording."""
    spool_dir = tmp_path_factory.mktemp("scan")
    path = spool_dir / "scan.h5"
    simulate_to_file(SIMULATION, path)
    replayed = open_scan(ReplaySettings(path=path)).perspective(0)
    simulated = open_scan(SIMULATION).perspective(0)
    truth = label(replayed, RetrievalSettings(epochs=20), spool_dir)
    image = stitch(truth, replayed.positions_px)
    expected = on_grid(label(simulated, RetrievalSettings(source=GroundTruthSource.SIMULATED), spool_dir), image)
    inside = image.coverage >= 6
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = slice(rows[0] + 8, rows[-1] - 8), slice(columns[0] + 8, columns[-1] - 8)
    return expected[box], image.phase[box], image


def label(perspective: Perspective, settings: RetrievalSettings, spool_dir: Path) -> GroundTruth:
    job = GroundTruthJob(
        perspective=0,
        frames=perspective.read(0, len(perspective)),
        positions_px=perspective.positions_px,
        probe=perspective.probe,
        mask=perspective.mask,
        recorded=perspective.ground_truth,
        target_shape_px=(32, 32),
    )
    with GroundTruthWorker(settings, spool_dir=spool_dir) as worker:
        worker.submit(job)
        result = worker.poll(timeout_s=120)
    assert result is not None
    assert result.ground_truth is not None, result.error
    return result.ground_truth


def stitch(truth: GroundTruth, positions_px: npt.NDArray[np.float64]) -> StitchedImage:
    mosaic = Mosaic()
    mosaic.stitch(place_patches(truth.amplitude.astype(float), truth.phase.astype(float), positions_px))
    return mosaic.image()


def on_grid(truth: GroundTruth, image: StitchedImage) -> Image:
    """The reference phase over the pixels of the stitched image."""
    offset = np.round(np.subtract(image.origin_px, truth.origin_px)).astype(int)
    height, width = image.phase.shape
    padded = np.pad(truth.reference_phase.astype(float), 64)
    top, left = offset + 64
    return padded[top : top + height, left : left + width]


def correlation(one: Image, other: Image) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_the_stitched_image_shows_the_simulated_object(
    truth_and_stitched: tuple[Image, Image, StitchedImage],
) -> None:
    expected, stitched, _ = truth_and_stitched
    assert correlation(expected, stitched) > 0.95


def test_it_is_in_place_to_a_tenth_of_a_pixel(truth_and_stitched: tuple[Image, Image, StitchedImage]) -> None:
    expected, stitched, _ = truth_and_stitched
    shift, _, _ = phase_cross_correlation(expected, stitched, upsample_factor=50)
    assert np.abs(shift).max() < 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_other_orientation_would_be_found(
    truth_and_stitched: tuple[Image, Image, StitchedImage], variant: str
) -> None:
    expected, stitched, _ = truth_and_stitched
    assert correlation(VARIANTS[variant](expected), stitched) < 0.6


def test_a_transposed_image_would_be_found(truth_and_stitched: tuple[Image, Image, StitchedImage]) -> None:
    expected, stitched, _ = truth_and_stitched
    side = min(expected.shape)
    assert correlation(expected[:side, :side].T, stitched[:side, :side]) < 0.6
