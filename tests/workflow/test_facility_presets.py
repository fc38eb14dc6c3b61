"""Presets of facilities: each is valid once it has addresses, and takes a scan from our simulators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.player import play
from ptychoflow.acquisition.detectors.receiver import Receiver
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.simulators import make_simulator
from ptychoflow.acquisition.detectors.sources import make_decoder
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.scan import Ending
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.configuration.live_choice import live_options, simulator_settings
from ptychoflow.workflow.configuration.presets import PRESET_FOLDER, preset_names

ENCODERS = ["simulator.field_y=INENC3.VAL", "simulator.field_x=INENC2.VAL"]
ATTRIBUTES = [
    "source.frames.positions.y=SampleY",
    "source.frames.positions.x=SampleX",
    "source.frames.positions.unit=um",
]
FRAMES = 40


@dataclass(frozen=True)
class Facility:
    """What a preset leaves to be said, and what speaks like the facility."""

    detector: str
    box: list[str] | None
    """Settings of the simulated PandA; None where frames bring their positions."""
    said: list[str]
    frame_px: int


FACILITIES = {
    "hxn": Facility("dectris-v1", [*ENCODERS, "simulator.samples_per_frame=10"], [], frame_px=160),
    "aps": Facility(
        "ntndarray",
        None,
        [
            "source.frames.pv=13SIM1:Pva1:Image",
            "source.frames.series.pv=13SIM1:cam1:Acquire_RBV",
            *ATTRIBUTES,
            "source.geometry.energy_eV=8800",
            "source.geometry.detector_pixel_size_m=75e-6",
            "source.geometry.detector_distance_m=1.5",
        ],
        frame_px=128,
    ),
    "nanomax": Facility("dectris-v1", ENCODERS, [], frame_px=64),
}
each_facility = pytest.mark.parametrize("name", FACILITIES)


def live_settings(name: str, assignments: list[str], *, detector: str, box: str | None) -> LiveSettings:
    source = load_config(name, None, assignments, options=live_options(detector, box)).source
    assert isinstance(source, LiveSettings)
    return source


@each_facility
def test_a_preset_says_its_origins_and_that_it_is_untested(name: str) -> None:
    text = (PRESET_FOLDER / f"{name}.toml").read_text()
    assert name in preset_names()
    assert "Untested on the real thing." in text
    for key in ("first_frame", "first_sample", "samples_per_frame"):
        assert f"{key} = " in text


@each_facility
def test_what_a_preset_leaves_open_is_asked_for_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"setting source\.frames\.(host|pv) is missing") as asked:
        load_config(name)
    assert "\n" not in str(asked.value)


@each_facility
@pytest.mark.timeout(120)
def test_a_preset_takes_a_scan_from_our_simulators(name: str, tmp_path: Path) -> None:
    facility = FACILITIES[name]
    sent = SimulatedScan(
        SimulationSettings(
            perspectives=1, frames_per_perspective=FRAMES, frame_shape_px=(facility.frame_px, facility.frame_px)
        )
    )
    with ExitStack() as stack:
        detector = stack.enter_context(playing(facility.detector, [], sent))
        addresses = {"detector": f"{facility.detector}://127.0.0.1:{detector.port}", "box": None}
        said = facility.said
        if facility.box is not None:
            box = stack.enter_context(playing("panda", facility.box, sent))
            addresses["box"] = f"panda://127.0.0.1:{box.port}"
        else:
            addresses["detector"] = facility.detector
            said = [*said, f'source.frames.servers=["127.0.0.1:{detector.port}"]']
        settings = live_settings(name, [*said, "source.perspectives=1"], **addresses)
        ledger, warnings = Ledger(), list[str]()
        receiver = stack.enter_context(closing(Receiver(settings, tmp_path, warn=warnings.append)))
        decoders = [make_decoder(one) for one in settings.sources]
        scan = LiveScan(
            settings, ArrivalsReader(tmp_path), decoders, attend=receiver.attend, probe=None, ledger=ledger,
            warn=warnings.append,
        )  # fmt: skip
        stack.enter_context(closing(scan))
        (taken,) = [one for one in scan.arriving() if one is not None]
        batches = [batch for batch in taken.batches(16) if batch is not None]
    assert taken.ending is Ending.COMPLETE, warnings
    assert not ledger.unplaced_because, warnings
    assert not ledger.missing_because
    order = np.argsort(np.concatenate([batch.indices for batch in batches]))
    assert len(order) == FRAMES
    came_px = np.concatenate([batch.positions_px for batch in batches])[order]
    came_m, sent_m = (
        places_px * np.array(one.geometry.object_pixel_size_m)
        for places_px, one in ((came_px, taken), (sent.perspective(0).positions_px, sent.perspective(0)))
    )
    np.testing.assert_allclose(came_m, sent_m, atol=1e-12)
    if (crop_px := settings.preprocess.crop_px) is not None:
        assert batches[0].frames.shape[1:] == tuple(crop_px)


@contextmanager
def playing(kind: str, assignments: list[str], scan: SimulatedScan) -> Iterator[Any]:
    """Have a simulator speak in a thread of its own."""
    simulator: Any = make_simulator(simulator_settings(f"{kind}://127.0.0.1:0", assignments))
    stop = threading.Event()

    def speak() -> None:
        with suppress(InterruptedError):
            play(simulator, scan, rate_hz=100.0, pause_s=0.0, stop=stop)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        stop.set()
        simulator.close()
        thread.join(10.0)
