"""Beside `ptychodus`: what that package writes is read with the right numbers."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from format_files import SCAN
from peers import peer_python
from scan_files import DISTANCE_M, ENERGY_EV, PIXEL_M, object_pixel_m, opened, probe_of

PEER = "ptychodus==1.7.0"
SCRIPT = Path(__file__).with_name("peer_ptychodus.py")


def test_a_product_and_its_frames_as_the_package_writes_them(tmp_path):
    python = peer_python(PEER)
    order = np.random.default_rng(3).permutation(25)
    bad = np.zeros(SCAN.shape, bool)
    bad[3, 5] = True
    np.savez(
        tmp_path / "scan.npz",
        order=order,
        frames=SCAN.frames[order],
        bad_pixels=bad,
        pixel_m=PIXEL_M,
        object_pixel_m=object_pixel_m(SCAN.shape),
        distance_m=DISTANCE_M,
        energy_eV=ENERGY_EV,
        positions_m=SCAN.positions_m,
        probe=probe_of(SCAN.shape, modes=2),
    )
    subprocess.run([python, SCRIPT, tmp_path / "scan.npz", tmp_path], check=True, timeout=120)
    for name in ("product.h5", "diffraction.h5"):
        perspective = opened(tmp_path / name).perspective(0)
        np.testing.assert_array_equal(perspective.mask, bad)
        np.testing.assert_array_equal(perspective.read(0, 25), SCAN.frames[order] * ~bad)
        shift = perspective.positions_px[0] - SCAN.positions_px[order][0]
        np.testing.assert_allclose(perspective.positions_px - shift, SCAN.positions_px[order], atol=1e-3)
        np.testing.assert_allclose(perspective.probe, probe_of(SCAN.shape, modes=2))
        assert perspective.geometry.energy_eV == ENERGY_EV
        assert perspective.geometry.detector_distance_m == DISTANCE_M
        assert perspective.geometry.detector_pixel_size_m == pytest.approx(PIXEL_M)
        assert perspective.angle_deg == 31.0
