"""Files that stay of a perspective."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from scipy import ndimage

from ptychoflow.inference_edge.ptychography.archive import Archive, PerspectiveImages
from ptychoflow.inference_edge.stitching.figures import amplitude_scale, difference_scale, phase_scale
from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

LABELS = ("amplitude", "phase")


def images(*, reference: bool) -> PerspectiveImages:
    rng = np.random.default_rng(0)
    amplitude = 1 + 0.2 * ndimage.gaussian_filter(rng.standard_normal((40, 50)), 2)
    phase = ndimage.gaussian_filter(rng.standard_normal((40, 50)), 2)
    coverage = np.full((40, 50), 3, dtype=np.int32)
    coverage[:5] = 1
    stitched = StitchedImage((amplitude + 0.1).astype(np.float32), (phase + 0.7).astype(np.float32), coverage, (2, -3))
    return PerspectiveImages(
        perspective=7,
        angle_deg=30.0,
        pixel_size_m=(2e-8, 2e-8),
        min_coverage=2,
        images={MosaicKind.FIRST_PASS: stitched, MosaicKind.REFRESHED: stitched},
        model_versions={MosaicKind.FIRST_PASS: [1, 2], MosaicKind.REFRESHED: [3]},
        reference=ReferenceImage(amplitude, phase, (2.0, -3.0)) if reference else None,
    )


def test_arrays_can_be_read_back_and_the_difference_is_free_of_the_global_phase(tmp_path):
    archive = Archive(RunFolder(tmp_path))
    archive.write(images(reference=True))
    archive.close()
    with h5py.File(tmp_path / "images" / "perspective_0007.h5") as file:
        assert file.attrs["angle_deg"] == 30.0
        assert file["first_pass"].attrs["model_versions"].tolist() == [1, 2]
        assert file["refreshed"].attrs["origin_px"].tolist() == [2, -3]
        axes = file["refreshed/phase"].dims
        assert axes[0]["y_m"][:3].tolist() == pytest.approx([4e-8, 6e-8, 8e-8])
        assert axes[1]["x_m"][0] == pytest.approx(-6e-8)
        assert file["refreshed/coverage"][()].min() == 1
        assert file["difference"].attrs["global_phase_rad"] == pytest.approx(0.7, abs=1e-6)
        assert file["difference"].attrs["origin_px"].tolist() == [7, -3]
        np.testing.assert_allclose(file["difference/amplitude"][()], 0.1, atol=1e-6)
        np.testing.assert_allclose(file["difference/phase"][()], 0.0, atol=1e-6)
    picture = imread(tmp_path / "images" / "perspective_0007_reference_phase.png")
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 0.05


def test_without_a_reference_there_is_nothing_to_compare(tmp_path):
    archive = Archive(RunFolder(tmp_path))
    archive.write(images(reference=False))
    archive.close()
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "perspective_0007.h5",
        *(f"perspective_0007_{kind}_{channel}.png" for kind in ("first_pass", "refreshed") for channel in LABELS),
    }


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(UserError, match="cannot write images"):
        Archive(RunFolder(tmp_path))
    archive = Archive(RunFolder(tmp_path / "run"))
    (tmp_path / "run" / "images").rmdir()
    archive.write(images(reference=False))
    with pytest.raises(UserError, match="cannot write images"):
        archive.close()


def test_a_perspective_whose_pictures_are_not_all_there_is_not_closed(tmp_path, monkeypatch):
    def fail(path, *_arguments, **_options):
        raise OSError(f"ended before {path.name}")

    monkeypatch.setattr("ptychoflow.inference_edge.ptychography.archive.write_picture", fail)
    archive = Archive(RunFolder(tmp_path))
    archive.write(replace(images(reference=True), closed_frames=40))
    with pytest.raises(UserError, match="ended before"):
        archive.close()
    assert Archive(RunFolder(tmp_path)).closed() == {}
    monkeypatch.undo()
    archive = Archive(RunFolder(tmp_path))
    archive.write(replace(images(reference=True), closed_frames=40))
    archive.close()
    assert Archive(RunFolder(tmp_path)).closed() == {7: 40}


def test_colours_ignore_outliers_and_use_a_circle_only_for_a_full_one():
    values = np.linspace(-0.5, 0.5, 1001)
    values[0] = 1e6
    assert amplitude_scale(values).upper == pytest.approx(0.5, abs=0.02)
    assert phase_scale(values).colour_map == "gray"
    full = phase_scale(np.linspace(-3.1, 3.1, 1000))
    assert (full.colour_map, full.lower, full.upper) == ("twilight", -np.pi, np.pi)
    assert difference_scale(np.array([-2.0, 0.5, np.nan])).upper == pytest.approx(2, rel=0.02)
