"""Frames per second from a simulated detector to where they go out to the edge, beside the bare decoder.

Measured is what a run does: socket, receiver process, arrivals file, decoder, joiner, decoding, region of interest.
The bare decoders have their frames in memory, so the ratio to them holds all the rest as well; the bare receiver takes
the same messages from a socket and decodes them, in one process and without a disk.
What follows, from the publisher to the edge, is what `bench stream` measures. The detector is a process of its own that
has made its messages before; its processor time is not counted, but it takes from the same cores.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import psutil

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, arrivals_files
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.receiver import Receiver
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_decoder
from ptychoflow.acquisition.frame_check import chosen_as_streamed, usable
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.scan import OpenEndedPerspective
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.benchmarks.live_bare import BARE_DECODERS, BareDecoder, BareReceiver
from ptychoflow.workflow.benchmarks.live_detector import Detector, Stream, make_frames
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed
from ptychoflow.workflow.launching.ports import choose_port
from ptychoflow.workflow.target import make_target

RATIO_TARGET = 0.7
FRAMES_PER_S_TARGET = 10_000
BATCH_FRAMES = 16
WARM_UP_FRAMES = 64
IDLE_S = 0.002
PATIENCE_S = 120.0

Come = TypeVar("Come")


@dataclass(frozen=True)
class Case:
    """What a detector sends."""

    stream: Stream
    frames: int
    """In a round."""
    crop_px: tuple[int, int] | None = None
    """Region of interest."""

    @property
    def name(self) -> str:
        """As the target is named."""
        height, width = self.stream.shape_px
        return f"{height}x{width}_{self.stream.dtype}_{self.stream.compression}"


CASES = (
    Case(Stream((128, 128), "uint16", "none"), 6000),
    Case(Stream((128, 128), "uint16", "bslz4"), 4000),
    Case(Stream((1062, 1028), "uint32", "bslz4"), 128, crop_px=(128, 128)),
)


@dataclass
class Rounds:
    """What was measured in every round of a case."""

    frames: int
    wall_s: list[float] = field(default_factory=list)
    receiver_cpu_s: list[float] = field(default_factory=list)
    acquisition_cpu_s: list[float] = field(default_factory=list)
    bare_s: dict[str, list[float]] = field(default_factory=dict)
    """Processor time for one frame, by decoder, and of the bare receiver."""
    lost: int = 0


def bench_live(*, cases: Sequence[Case] = CASES, rounds: int = 5) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes about two minutes on two cores.

    Args:
        cases: what detectors send.
        rounds: measurements of each case, in turn with the bare decoders; medians are reported, of ratios the median of
            the rounds', beside the least and the most. The target by the clock holds for the slowest round.

    Raises:
        BenchmarkFailed: frames were lost or changed on the way.
        UserError: a library that decodes is not installed, or this is not Linux.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("bench live keeps processes on certain cores, which only Linux can do")
    keep_freed_memory()
    cores = sorted(os.sched_getaffinity(0))
    results, targets = [], []
    for case in cases:
        for used in dict.fromkeys((1, len(cores))):
            with _on_cores(cores[:used]):
                result = _figures(case, _measure(case, rounds, cores=cores, used=used), cores=used)
            results.append(result)
            if used == len(cores):
                targets += _targets(case, result)
    return {"results": results, "targets": targets}


def _targets(case: Case, result: dict[str, Any]) -> list[dict[str, Any]]:
    targets = [make_target(f"live_lost_{case.name}", float(result["lost"]), 0.0, "max")]
    if case.stream.compression != "none":
        ratio = result["cpu_ratio_to_imagecodecs"]
        targets.append(make_target(f"live_ratio_to_bare_{case.name}", ratio, RATIO_TARGET, "min"))
    else:
        rate = result["frames_per_s_least"]
        targets.append(make_target(f"live_frames_per_s_least_{case.name}", rate, FRAMES_PER_S_TARGET, "min"))
    return targets


def _figures(case: Case, rounds: Rounds, *, cores: int) -> dict[str, Any]:
    frames = rounds.frames
    ours_s = [
        (receiver + acquisition) / frames
        for receiver, acquisition in zip(rounds.receiver_cpu_s, rounds.acquisition_cpu_s, strict=True)
    ]
    figures: dict[str, Any] = {
        "frame_shape_px": case.stream.shape_px,
        "dtype": case.stream.dtype,
        "compression": case.stream.compression,
        "crop_px": case.crop_px,
        "cores": cores,
        "frames": frames,
        "rounds": len(ours_s),
        "lost": rounds.lost,
        "frames_per_s": frames / statistics.median(rounds.wall_s),
        "frames_per_s_least": frames / max(rounds.wall_s),
        "frames_per_s_most": frames / min(rounds.wall_s),
        "frames_per_cpu_s": 1 / statistics.median(ours_s),
        "receiver_us_per_frame": 1e6 * statistics.median(rounds.receiver_cpu_s) / frames,
        "acquisition_us_per_frame": 1e6 * statistics.median(rounds.acquisition_cpu_s) / frames,
    }
    for name, bare_s in rounds.bare_s.items():
        ratios = [bare / ours for bare, ours in zip(bare_s, ours_s, strict=True)]
        figures[f"{name}_us_per_frame"] = 1e6 * statistics.median(bare_s)
        figures[f"cpu_ratio_to_{name}"] = statistics.median(ratios)
        figures[f"cpu_ratio_to_{name}_least"], figures[f"cpu_ratio_to_{name}_most"] = min(ratios), max(ratios)
    return figures


def _measure(case: Case, rounds: int, *, cores: Sequence[int], used: int) -> Rounds:
    measured = Rounds(case.frames)
    bare = {name: make(case.stream) for name, make in BARE_DECODERS.items() if case.stream.compression != "none"}
    expected = make_frames(case.stream)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        positions_port = choose_port(NetworkSettings(), ranks=1)
        others = cores[used:] or cores
        detector = stack.enter_context(Detector(case.stream, positions_port=positions_port, cores=others))
        line = stack.enter_context(_line(case, detector.port, positions_port, folder, decoders=used))
        line.take_series(detector, WARM_UP_FRAMES, expected)
        other_detector = stack.enter_context(Detector(case.stream, positions_port=None, cores=others))
        bare_receiver = stack.enter_context(closing(BareReceiver(case.stream, other_detector)))
        bare_receiver.cpu_s(WARM_UP_FRAMES)
        for _ in range(rounds):
            for name, decoder in bare.items():
                measured.bare_s.setdefault(name, []).append(_bare_s(decoder, case.frames))
            measured.bare_s.setdefault("bare_receiver", []).append(bare_receiver.cpu_s(case.frames))
            line.take_series(detector, case.frames, None, measured)
    return measured


def _bare_s(decoder: BareDecoder, frames: int) -> float:
    began_s = time.process_time()
    for number in range(frames):
        decoder(number)
    return (time.process_time() - began_s) / frames


class Line:
    """What receives: as in a run, up to the frames as they travel."""

    def __init__(self, scan: LiveScan, receiver: Receiver, folder: Path, warnings: list[str]) -> None:
        self._arriving = scan.arriving()
        self._receiver, self._folder, self._warnings = receiver, folder, warnings

    def take_series(
        self,
        detector: Detector,
        frames: int,
        expected: npt.NDArray[np.generic] | None,
        measured: Rounds | None = None,
    ) -> None:
        """Have the detector send a series, and take it.

        Args:
            detector: what sends.
            frames: how many.
            expected: the distinct frames, to be compared with what comes; None compares no more than how many came.
            measured: where times go.
        """
        detector.prepare(frames)
        for read in arrivals_files(self._folder)[:-1]:
            read.unlink()  # memory for files that a virtual machine had not touched before costs more than all the rest
        receiver_s, own_s, began_s = self._receiver_cpu_s(), time.process_time(), time.perf_counter()
        detector.send()
        came = 0
        for indices, images in self._taken(began_s):
            came += len(indices)
            if expected is not None and not _same(images, expected[indices % len(expected)]):
                raise BenchmarkFailed("frames were changed on the way")
        if measured is not None:
            measured.wall_s.append(time.perf_counter() - began_s)
            measured.acquisition_cpu_s.append(time.process_time() - own_s)
            measured.receiver_cpu_s.append(self._receiver_cpu_s() - receiver_s)
            measured.lost += frames - came
        detector.wait_until_sent()
        if came != frames:
            raise BenchmarkFailed(f"{frames - came} of {frames} frames were lost: {'; '.join(self._warnings[-3:])}")

    def _taken(self, began_s: float) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[Any]]]:
        for batch in _working(self._perspective(began_s).batches(BATCH_FRAMES), began_s):
            good = usable(batch.frames)
            yield batch.indices[good], chosen_as_streamed(batch.frames, good)

    def _perspective(self, began_s: float) -> OpenEndedPerspective:
        return next(_working(self._arriving, began_s))

    def _receiver_cpu_s(self) -> float:
        times = psutil.Process(self._receiver.pid).cpu_times()
        return float(times.user + times.system)


def _working(source: Iterator[Come | None], began_s: float) -> Iterator[Come]:
    for come in source:
        if come is not None:
            yield come
        elif time.perf_counter() - began_s > PATIENCE_S:
            raise BenchmarkFailed(f"nothing came for {PATIENCE_S:.0f} s")
        else:
            time.sleep(IDLE_S)


def _same(images: npt.NDArray[Any], expected: npt.NDArray[np.generic]) -> bool:
    """Whether frames are those that were sent, or the middle of them."""
    shape = images.shape[1:]
    starts = [whole // 2 - part // 2 for whole, part in zip(expected.shape[1:], shape, strict=True)]
    middle = expected[:, starts[0] : starts[0] + shape[0], starts[1] : starts[1] + shape[1]]
    return bool(np.array_equal(images, middle.astype(images.dtype)))


@contextmanager
def _line(case: Case, port: int, positions_port: int, folder: Path, *, decoders: int) -> Iterator[Line]:
    settings = LiveSettings.model_validate(
        {
            "frames": {"kind": "dectris-v2", "host": "127.0.0.1", "port": port},
            "positions": {"kind": "position-sender", "port": positions_port},
            "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1},
            "geometry": {"detector_distance_m": 1.5},
            "preprocess": {"crop_px": case.crop_px, "find_bad_pixels": False},
            "first_frames": WARM_UP_FRAMES // 4,
            "decoders": decoders,
        }
    )
    warnings = list[str]()
    with closing(Receiver(settings, folder, warn=warnings.append)) as receiver:
        scan = LiveScan(
            settings,
            ArrivalsReader(folder),
            [make_decoder(one) for one in settings.sources],
            attend=receiver.attend,
            probe=None,
            ledger=Ledger(),
            warn=warnings.append,
            time_of_day_s=receiver.time_of_day_s,
        )
        with closing(scan):
            yield Line(scan, receiver, folder, warnings)


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
