"""Whole perspectives handed over: read back by our own reader, and by ptychodus itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from output_news import FIRST_PASS, REFERENCE, REFRESHED, news
from peers import peer_python

from ptychoflow.acquisition.ptychography.acquired import AcquiredPerspective, TakenFrames
from ptychoflow.acquisition.ptychography.keeping import Keeper
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.dashboard.mosaics import Mosaic, MosaicStore
from ptychoflow.dashboard.outputs.output import ConsumerAway
from ptychoflow.dashboard.outputs.ptychodus import PtychodusOutput
from ptychoflow.dashboard.outputs.settings import PtychodusOutputSettings
from ptychoflow.streaming.events import MosaicImage, MosaicKind
from ptychoflow.streaming.kept_perspective import kept_perspectives
from ptychoflow.streaming.settings import RunContext

PTYCHODUS = "ptychodus==1.7.0"
PEER = Path(__file__).with_name("peer_ptychodus.py")
SOURCE = SimulationSettings(
    perspectives=2, frames_per_perspective=30, frame_shape_px=(32, 24), seed=3, dead_pixel_fraction=0.02
)


@pytest.fixture(scope="module")
def perspective() -> Perspective:
    return open_scan(SOURCE).perspective(1)


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext("star", tmp_path / "runs" / "star", seed=0)


@pytest.fixture
def output(tmp_path: Path, run: RunContext) -> Iterator[PtychodusOutput]:
    with closing(PtychodusOutput(PtychodusOutputSettings(folder=tmp_path / "handed"), run=run)) as opened:
        yield opened


def acquire(perspective: Perspective, folder: Path) -> AcquiredPerspective:
    """Take the frames in an order of their own; one of them is missing."""
    folder.mkdir(parents=True)
    taken = TakenFrames(perspective, folder)
    for batch in reversed(list(perspective.batches(7))):
        chosen = batch.indices != 11
        arrays = {
            "index": batch.indices[chosen],
            "role": np.zeros(int(chosen.sum()), np.uint8),
            "position_px": batch.positions_px[chosen],
            "diffraction": batch.frames[chosen],
        }
        taken.add(arrays, acquired=len(batch))
    return taken.perspective_acquired()


def keep(perspective: Perspective, run: RunContext) -> None:
    """As the acquisition does, which then lets go of the frames."""
    warnings: list[str] = []
    acquired = acquire(perspective, run.folder.spool / "job")
    Keeper(run.folder.kept_perspectives, warn=warnings.append).keep(acquired)
    acquired.forget_frames()
    assert warnings == []


def image_of(perspective: Perspective, kind: MosaicKind, phase: float = 0.5) -> Mosaic:
    height_px, width_px = np.ptp(perspective.positions_px, axis=0) + 40
    values = np.full((int(height_px), int(width_px)), phase, np.float32)
    values[0] = np.nan
    top, left = np.floor(perspective.positions_px.min(axis=0)) - 20
    origin_px = float(top), float(left)
    event = MosaicImage(perspective.index, kind, 7, origin_px, perspective.geometry.object_pixel_size_m)
    taken = MosaicStore(kept_perspectives=2, max_bytes=1 << 30).take(
        event, {"amplitude": values + 0.25, "phase": values}
    )
    assert taken is not None
    return taken


def shown_phase(folder: Path) -> float:
    with h5py.File(folder / "product.h5") as product:
        return float(np.angle(product["object"][0, 5, 5]))


def array(said: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(said["hex"]), said["dtype"]).reshape(said["shape"])


def test_ptychodus_itself_reads_a_perspective_exactly(
    perspective: Perspective, run: RunContext, output: PtychodusOutput, tmp_path: Path
) -> None:
    python = peer_python(PTYCHODUS)
    keep(perspective, run)
    image = image_of(perspective, REFERENCE)
    output.send(news(image))
    folder = tmp_path / "handed" / "star" / "perspective_0001"
    done = subprocess.run([python, PEER, folder], capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout)
    chosen = np.array([index for index in range(30) if index != 11])
    frames = perspective.read(0, 30)[chosen]
    assert said["indices"] == said["pattern_indices"] == chosen.tolist()
    np.testing.assert_array_equal(array(said["patterns"]), frames)
    assert array(said["patterns"]).dtype == frames.dtype
    assert perspective.mask is not None
    np.testing.assert_array_equal(array(said["bad_pixels"]), perspective.mask)
    assert perspective.probe is not None
    np.testing.assert_array_equal(array(said["probe"])[0], perspective.probe)
    covered = np.nan_to_num(image.channels["amplitude"] * np.exp(1j * image.channels["phase"]))
    np.testing.assert_allclose(array(said["object"])[0], covered, atol=1e-6)
    # where ptychodus sees the probe in the object
    expected_px = perspective.positions_px[chosen] - image.info.origin_px
    np.testing.assert_allclose(said["object_px"], expected_px, atol=1e-6)
    geometry = perspective.geometry
    assert said["energy_eV"] == geometry.energy_eV
    assert said["distance_m"] == geometry.detector_distance_m
    assert tuple(said["detector_pixel_m"]) == geometry.detector_pixel_size_m
    assert said["angle_deg"] == pytest.approx(perspective.angle_deg)
    assert said["photons"] == frames.sum(axis=(1, 2), dtype=np.float64).max()
    assert said["name"] == "star perspective 1 reference"


def test_our_own_reader_takes_the_files_for_the_same_scan(
    perspective: Perspective, run: RunContext, output: PtychodusOutput, tmp_path: Path
) -> None:
    keep(perspective, run)
    output.send(news(image_of(perspective, FIRST_PASS)))
    path = tmp_path / "handed" / "star" / "perspective_0001" / "product.h5"
    with closing(open_scan(ReplaySettings(path=path))) as scan:
        again = scan.perspective(0)
        chosen = np.array([index for index in range(30) if index != 11])
        np.testing.assert_array_equal(again.read(0, 29), perspective.read(0, 30)[chosen])
        np.testing.assert_allclose(
            again.positions_px - again.positions_px[0],
            perspective.positions_px[chosen] - perspective.positions_px[0],
            atol=1e-6,
        )
        np.testing.assert_allclose(again.geometry.object_pixel_size_m, perspective.geometry.object_pixel_size_m)
        assert again.angle_deg == pytest.approx(perspective.angle_deg)
        np.testing.assert_array_equal(again.mask, perspective.mask)


def test_nothing_is_written_before_all_frames_have_come_and_a_better_image_replaces_the_one_before(
    perspective: Perspective, run: RunContext, output: PtychodusOutput, tmp_path: Path
) -> None:
    folder = tmp_path / "handed" / "star" / "perspective_0001"
    output.send(news(image_of(perspective, FIRST_PASS, 0.1)))
    assert not folder.exists()
    keep(perspective, run)
    output.send(news(image_of(perspective, FIRST_PASS, 0.2)))
    assert shown_phase(folder) == pytest.approx(0.2)
    written = (folder / "diffraction.h5").stat().st_mtime_ns
    (kept,) = kept_perspectives(run.folder.kept_perspectives)
    assert not (kept / "frames").exists()
    for kind, phase, shown in ((REFRESHED, 0.3, 0.3), (REFERENCE, 0.4, 0.4), (REFRESHED, 0.5, 0.4)):
        output.send(news(image_of(perspective, kind, phase)))
        assert shown_phase(folder) == pytest.approx(shown)
    assert (folder / "diffraction.h5").stat().st_mtime_ns == written


def test_frames_that_came_after_the_last_image_are_handed_over_at_the_end(
    perspective: Perspective, run: RunContext, tmp_path: Path
) -> None:
    with closing(PtychodusOutput(PtychodusOutputSettings(folder=tmp_path / "handed"), run=run)) as output:
        output.send(news(image_of(perspective, FIRST_PASS, 0.1)))
        keep(perspective, run)
    assert shown_phase(tmp_path / "handed" / "star" / "perspective_0001") == pytest.approx(0.1)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from output_news import FIRST_PASS, news
from test_ptychodus_output import SOURCE, image_of, keep
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.dashboard.outputs.output import ConsumerAway
from ptychoflow.dashboard.outputs.ptychodus import PtychodusOutput
from ptychoflow.dashboard.outputs.settings import PtychodusOutputSettings
from ptychoflow.streaming.settings import RunContext
folder = Path(sys.argv[1])
run = RunContext("star", folder / "runs" / "star", seed=0)
scanned = open_scan(SOURCE).perspective(1)
keep(scanned, run)
output = PtychodusOutput(PtychodusOutputSettings(folder=folder / "handed"), run=run)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
try:
    output.send(news(image_of(scanned, FIRST_PASS)))
except ConsumerAway as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
output.close()
"""


def test_a_full_disk_is_a_consumer_that_is_away_and_crashes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), *sys.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("cannot hand over perspective 1: ")
    folder = tmp_path / "handed" / "star" / "perspective_0001"
    assert sorted(path.name for path in folder.iterdir()) == ["diffraction.h5", "product.h5"]
    with h5py.File(folder / "diffraction.h5") as file:
        assert len(file["patterns"]) == 29


def test_a_disk_that_takes_nothing_is_a_consumer_that_is_away_and_is_tried_again(
    perspective: Perspective, run: RunContext, output: PtychodusOutput, tmp_path: Path
) -> None:
    keep(perspective, run)
    folder = tmp_path / "handed" / "star" / "perspective_0001"
    folder.write_bytes(b"in the way")
    with pytest.raises(ConsumerAway, match=r"cannot hand over perspective 1: .*File exists"):
        output.send(news(image_of(perspective, FIRST_PASS, 0.1)))
    folder.unlink()
    output.send(news(image_of(perspective, FIRST_PASS, 0.2)))
    assert shown_phase(folder) == pytest.approx(0.2)
