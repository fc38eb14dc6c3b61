"""The inspector: what it says about a scan is what is in the scan."""

import io
import weakref

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from ptychoflow.acquisition.inspect import inspect_scan
from ptychoflow.acquisition.scan_plot import plot_scan
from ptychoflow.acquisition.simulation.scan import SimulatedPerspective, SimulatedScan
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

SETTINGS = SimulationSettings(
    perspectives=2, frames_per_perspective=36, position_jitter_px=0.0, dead_pixel_fraction=0.01, photons_per_frame=1e5
)


def printed(description) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(description)
    return console.export_text()


def test_description_of_a_simulated_scan():
    scan = SimulatedScan(SETTINGS)
    description = inspect_scan(scan)
    step = 0.3 * 0.4 * 64
    assert description.frames == 72
    first = description.perspectives[0]
    assert first.angle_deg == -45
    assert first.extent_px == pytest.approx((5 * step, 5 * step))
    assert first.step_px == pytest.approx(step)
    assert first.masked_pixels == scan.perspective(0).mask.sum() > 0
    assert first.ground_truth_shape_px == scan.perspective(0).ground_truth.values.shape
    assert description.overlap == pytest.approx(1 - step / min(description.probe_diameter_px))
    assert description.counts.largest == scan.perspective(0).read(0, 36).max()
    assert description.counts.mean_per_frame == pytest.approx(scan.perspective(0).read(0, 36).sum() / 36)
    assert 0 < description.fresnel_number < 0.1
    text = printed(description)
    for words in ("72 of 64 × 64 px", "8.8 keV", "1.5 m", "75 × 75 µm", "44.03 × 44.03 nm", "uint16"):
        assert words in text
    assert "The scan is simulated" in text


def test_one_perspective_is_told_in_the_singular():
    text = printed(inspect_scan(SimulatedScan(SETTINGS.model_copy(update={"perspectives": 1}))))
    assert "36 of 64 × 64 px in 1 perspective" in text
    assert "perspectives" not in text


def test_description_of_the_measured_scan(measured_data):
    description = inspect_scan(open_scan(ReplaySettings(path=measured_data / "siemens_star.cxi")))
    assert description.frames == 516
    assert description.notes == ["Read as CXI"]
    assert description.perspectives[0].ground_truth_shape_px is None
    assert 0.7 < description.overlap < 0.95
    assert description.fresnel_number < 0.01


def test_plot_is_an_image_that_shows_something(tmp_path):
    plot_scan(SimulatedScan(SETTINGS), tmp_path / "scan.png")
    image = plt.imread(tmp_path / "scan.png")
    assert image.shape[0] > 500
    assert np.std(image[..., :3]) > 0.1


def test_plot_holds_few_frames_at_a_time_however_many_it_reads(tmp_path, monkeypatch):
    read, frames, most = SimulatedPerspective.read, [], 0

    def counted(self, start, stop):
        nonlocal most
        most = max(most, sum(frame() is not None for frame in frames))
        part = read(self, start, stop)
        frames.append(weakref.ref(part))
        return part

    monkeypatch.setattr(SimulatedPerspective, "read", counted)
    plot_scan(SimulatedScan(SETTINGS), tmp_path / "scan.png")
    assert len(frames) == 40
    assert most <= 4


def test_frames_that_cannot_be_read_are_left_out_of_the_plot(tmp_path, monkeypatch):
    read = SimulatedPerspective.read

    def damaged(self, start, stop):
        if start == 0:
            raise UserError("frames 0 to 1 cannot be read")
        return read(self, start, stop)

    monkeypatch.setattr(SimulatedPerspective, "read", damaged)
    plot_scan(SimulatedScan(SETTINGS), tmp_path / "scan.png")
    image = plt.imread(tmp_path / "scan.png")
    assert np.std(image[..., :3]) > 0.1


def test_plot_that_cannot_be_written_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"^cannot write .*scan\.png: No such file or directory; make the folder"):
        plot_scan(SimulatedScan(SETTINGS), tmp_path / "absent" / "scan.png")
