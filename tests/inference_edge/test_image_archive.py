"""Files that stay of a perspective."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import h5py
import numpy as np
import psutil
import pytest
from held_disk import hold_disk
from matplotlib.image import imread
from scipy import ndimage
from support import wait_until

from ptychoflow.inference_edge.ptychography.archive import WAITING_MAX, Archive, PerspectiveImages
from ptychoflow.inference_edge.ptychography.picture_drawer import PROCESS, PictureDrawer
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
        axes = file["difference/phase"].dims
        assert axes[0]["y_m"][0] == pytest.approx(7 * 2e-8)
        assert axes[1]["x_m"][0] == pytest.approx(-6e-8)
        assert [len(axis[0]) for axis in axes] == list(file["difference/phase"].shape)
        np.testing.assert_allclose(file["difference/amplitude"][()], 0.1, atol=1e-6)
        np.testing.assert_allclose(file["difference/phase"][()], 0.0, atol=1e-6)
    picture = imread(tmp_path / "images" / "perspective_0007_reference_phase.png")
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 0.05


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_image_archive import images
from ptychoflow.inference_edge.ptychography.archive import Archive
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.run_folder import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
archive = Archive(RunFolder(Path(sys.argv[1])))
archive.write(images(reference=True))
try:
    archive.close()
except UserError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_is_one_clear_line_and_no_crash(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), *sys.path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"cannot write images to {tmp_path / 'images'}: ")
    assert done.stdout.endswith("; check permission and disk space\n")
    assert list((tmp_path / "images").iterdir()) == []


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


def test_pictures_that_an_edge_has_not_drawn_are_drawn_by_one_that_is_started_again(tmp_path):
    in_the_way = RunFolder(tmp_path).picture(7, "refreshed", "amplitude")
    in_the_way.mkdir(parents=True)
    archive = Archive(RunFolder(tmp_path))
    archive.write(replace(images(reference=True), closed_frames=40))
    with pytest.raises(UserError, match=f"{in_the_way.name}.*directory"):
        archive.close()
    in_the_way.rmdir()
    assert 0 < len(list((tmp_path / "images").glob("*.png"))) < 8
    for _ in range(2):
        archive = Archive(RunFolder(tmp_path))
        assert archive.closed() == {7: 40}
        assert archive.undrawn <= 1
        archive.close()
        pictures = list((tmp_path / "images").glob("*.png"))
        assert len(pictures) == 8
        assert all(imread(picture).std() > 0.01 for picture in pictures)
    times = [picture.stat().st_mtime_ns for picture in sorted(pictures)]
    archive = Archive(RunFolder(tmp_path))
    assert archive.closed() == {7: 40}
    assert archive.undrawn == 0, "pictures that are there are not drawn again"
    archive.close()
    assert [picture.stat().st_mtime_ns for picture in sorted(pictures)] == times


def test_arrays_are_saved_before_any_pictures_and_pictures_need_no_memory(tmp_path, monkeypatch):
    """While drawing takes for ever, arrays of what was waiting then are all written, and no image is held any more."""
    may_draw = threading.Event()
    drawn = []
    monkeypatch.setattr(PictureDrawer, "draw", lambda _, number: (may_draw.wait(60), drawn.append(number)))
    archive = Archive(RunFolder(tmp_path))
    held = []
    with hold_disk(monkeypatch) as disk:
        for perspective in range(30):
            one = replace(images(reference=True), perspective=perspective)
            held.append(weakref.ref(one))
            archive.write(one)
            assert archive.full == (perspective + 1 >= WAITING_MAX)
        del one
        assert not archive.saved
        disk.set()
        wait_until(lambda: archive.saved)
    assert len(RunFolder(tmp_path).image_files()) == 30
    assert not archive.full
    assert archive.undrawn >= 29
    wait_until(lambda: not any(reference() for reference in held))
    may_draw.set()
    archive.close()
    assert archive.undrawn == 0
    assert sorted(drawn) == list(range(30))


def test_pictures_are_drawn_though_the_process_that_draws_them_is_killed(tmp_path, caplog):
    archive = Archive(RunFolder(tmp_path))
    archive.write(images(reference=False))
    archive.wait()
    (drawing,) = (one for one in psutil.Process().children() if PROCESS in one.cmdline())
    drawing.kill()
    archive.write(replace(images(reference=False), perspective=8))
    archive.close()
    assert len(list((tmp_path / "images").glob("perspective_0008*.png"))) == 4
    assert "were not drawn to their end: it was ended by SIGKILL" in caplog.text
    assert not [one for one in psutil.Process().children() if PROCESS in one.cmdline()]


def test_imaging_does_not_share_its_lock_with_drawing():
    command = "import sys, ptychoflow.inference_edge.ptychography.service; print('matplotlib' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert asked.stdout == "False\n"


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"not HDF5", lambda data: None]
)
def test_files_that_cannot_be_read_do_not_count_as_written(tmp_path, damage, caplog):
    archive = Archive(RunFolder(tmp_path))
    archive.write(replace(images(reference=False), closed_frames=40))
    archive.close()
    path = RunFolder(tmp_path).image_file(7)
    damaged = damage(path.read_bytes())
    if damaged is None:
        with h5py.File(path, "a") as file:
            file.attrs["closed_frames"] = "many"
    else:
        path.write_bytes(damaged)
    archive = Archive(RunFolder(tmp_path))
    assert archive.closed() == {}
    assert "perspective_0007.h5 is not counted as written" in caplog.text
    archive.close()


def test_colours_ignore_outliers_and_use_a_circle_only_for_a_full_one():
    values = np.linspace(-0.5, 0.5, 1001)
    values[0] = 1e6
    assert amplitude_scale(values).upper == pytest.approx(0.5, abs=0.02)
    assert phase_scale(values).colour_map == "gray"
    full = phase_scale(np.linspace(-3.1, 3.1, 1000))
    assert (full.colour_map, full.lower, full.upper) == ("twilight", -np.pi, np.pi)
    assert difference_scale(np.array([-2.0, 0.5, np.nan])).upper == pytest.approx(2, rel=0.02)
