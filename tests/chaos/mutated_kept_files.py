"""Damages files that the parts of a run write and read back, and those of people, in every way that is known.

    PYTHONPATH=tests python tests/chaos/mutated_kept_files.py --count 100000 --seed 1

Each file must be read, or be told of in one line (`UserError`). A run that was broken off goes on where it was; what
failed is in the folder that it names. `--only NUMBER` does one of them again. A short run is a test.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import torch
from broken_messages import TOKENS
from checkpoint_files import save

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, ArrivalsWriter
from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.readers.map_files import load_dataset_map
from ptychoflow.acquisition.readers.tables import read_table
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult
from ptychoflow.acquisition.sources import load_probe
from ptychoflow.dashboard.archive import ImageArchive
from ptychoflow.dashboard.runs import Runs, read_run
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.inference_edge.classification.records import TaskRecord, TaskRecords
from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.inference_edge.ptychography.archive import Archive, PerspectiveImages
from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicKind, Part, Telemetry, TrainingStep, WarningRaised
from ptychoflow.streaming.kept_perspective import About, keep_perspective, kept_perspectives, read_kept
from ptychoflow.streaming.messages import GroundTruthSource, Weights
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.trainer.checkpoints.checkpoint import newest, set_damaged_aside
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.tensor_file import digest
from ptychoflow.trainer.models.weights_file import Manifest, write_weights
from ptychoflow.workflow.configuration.config import load_config, write_config
from ptychoflow.workflow.environment import describe_environment
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.fashion_mnist import read_idx
from ptychoflow.workflow.json_results import write_json
from ptychoflow.workflow.launching.resuming import resumed_config
from ptychoflow.workflow.report import write_report
from ptychoflow.workflow.summary import summarise

log = logging.getLogger(__name__)

NETWORK = NetworkConfig(model=ModelSettings(width=2, levels=2), frame_shape_px=(16, 16), target_shape_px=(8, 8))
NUMBERS = (b"-1", b"0", b"1e400", b"NaN", b"9" * 400, b"9" * 5000, b"18446744073709551616", b"null", b"[]", b"true")
TEXTS = (b'"\\u0000"', b'"\xff"', b"[" * 3000, b'{"a":' * 3000, b"=", b"\n[x]\n", b"2026-11-29", b"inf", b"'''")
SLOWEST_S = 20.0
"""Of processor time."""
SAVED_EVERY_S = 2.0


@dataclass(frozen=True)
class Kept:
    """Files that are written and read back."""

    write: Callable[[Path], list[Path]]
    """Write them into an empty folder; return those that are damaged, one at a time."""
    read: Callable[[Path], object]
    """Read them as the program does."""


def _run_files(folder: Path) -> list[Path]:
    run, state = RunFolder(folder), RunState()
    run.weights.mkdir()
    write_config(load_config("simulated", assignments=[f"run.directory={folder.parent}", "run.name=run"]), run.config)
    events = [WarningRaised("dark frames"), TrainingStep(3, 0.5, 0.1, 0.4, 1e-3, 10, 4, 10.0)]
    lines = [msgspec.json.encode(Telemetry(float(at), Part.TRAINER, 0, event)) for at, event in enumerate(events)]
    run.telemetry.write_bytes(b"\n".join(lines) + b"\n")
    run.summary.write_text(json.dumps(summarise(state)))
    write_json(describe_environment() | {"seed": 1}, run.environment)
    return [run.config, run.telemetry, run.summary, run.environment]


def _resume(folder: Path) -> None:
    try:
        resumed_config(folder)
    finally:
        settings = DashboardSettings()
        state = DashboardState("other", settings)
        Runs(state, RunFolder(folder.parent / "other"), settings).all()
        read_run(RunFolder(folder), settings)
        write_report(RunFolder(folder))


def _checkpoints(folder: Path) -> list[Path]:
    state = {"learner": {"rate": 0.5, "weights": torch.arange(6.0)}, "stream": {"done": {"0": torch.arange(3)}}}
    for step in (10, 20):
        path = save(folder, step=step, common=state, shard=state, keep=3)
    return [path / name for name in ("complete.json", "common.safetensors", "rank-0.safetensors")]


def _go_on(folder: Path) -> None:
    set_damaged_aside(folder)
    if (found := newest(folder)) is not None:
        assert found.common()["learner"]["weights"].tolist() == list(range(6))
        assert found.shards()[0]["stream"]["done"]["0"].tolist() == [0, 1, 2]


def _images(folder: Path) -> list[Path]:
    values = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    image = StitchedImage(values, values, np.ones((8, 8), np.int32), (0, 0))
    both = (MosaicKind.FIRST_PASS, MosaicKind.REFRESHED)
    archive = Archive(RunFolder(folder))
    archive.write(
        PerspectiveImages(
            0, 0.0, (1e-8, 1e-8), 1, dict.fromkeys(both, image), {kind: [1] for kind in both}, None, closed_frames=4
        )
    )
    archive.wait()
    archive.close()
    return [RunFolder(folder).image_file(0)]


def _see_images(folder: Path) -> None:
    ImageArchive(RunFolder(folder)).of(0)
    with closing(Archive(RunFolder(folder))) as archive:
        archive.closed()
        archive.wait()


def _outcomes(folder: Path) -> list[Path]:
    journal = Journal(folder, scan="a scan")
    patches, whole = np.ones((3, 4, 4), np.float16), np.ones((6, 6), np.float32)
    truth = GroundTruth(
        patches, patches, np.zeros(3, bool), whole, whole, (0.0, 1.0), source=GroundTruthSource.PTYCHI, seconds=1.0
    )
    journal.record_result(GroundTruthResult(0, truth, None))
    journal.record_result(GroundTruthResult(1, None, "no light"))
    journal.mark_skipped(2)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_outcomes(folder: Path) -> None:
    journal = Journal(folder, scan="a scan")
    for perspective in range(3):
        if (result := journal.result(perspective)) is not None and result.ground_truth is not None:
            truth = result.ground_truth
            assert (truth.amplitude.shape, truth.phase.shape, truth.void.shape) == ((3, 4, 4), (3, 4, 4), (3,))


def _kept(folder: Path) -> list[Path]:
    frames = folder / "frames"
    frames.write_bytes(bytes(3 * 4 * 4))
    about = About(0, 1.0, 8e3, 1.0, (1e-4, 1e-4), (1e-8, 1e-8), (3, 4, 4), "|u1")
    arrays = {"indices": np.arange(3), "positions_px": np.zeros((3, 2)), "places": np.arange(3)}
    keep_perspective(folder / "kept", about, frames, arrays | {"probe": np.ones((1, 4, 4), np.complex64)})
    return sorted(path for path in (folder / "kept").rglob("*") if path.is_file())


def _read_kept(folder: Path) -> None:
    for kept in map(read_kept, kept_perspectives(folder / "kept")):
        assert len(kept.indices) == len(kept.positions_px) == len(kept.places)
        kept.stored()[kept.places]


def _tasks(folder: Path) -> list[Path]:
    TaskRecords(RunFolder(folder)).write(TaskRecord(0, False, 7, 7, 3, 2, 3, (1, 2)))
    return [RunFolder(folder).task_file(0)]


def _weights(folder: Path) -> list[Path]:
    network = FrameNetwork(NETWORK)
    created_at = datetime(2026, 1, 2, tzinfo=UTC)
    manifest = Manifest(
        version=3, step=9, network=NETWORK, validation_loss=0.5, final=True, created_at=created_at, run="run"
    )
    data = write_weights(network, manifest, constant=Patches(amplitude=torch.ones(8, 8), phase=torch.ones(8, 8)))
    FinalWeights(RunFolder(folder)).write(Weights(3, digest(data), step=9, final=True), data)
    torch.save(network.ptychonn.state_dict(), folder / "published.pth")
    (folder / "own.safetensors").write_bytes(data)
    return [RunFolder(folder).final_weights, folder / "published.pth", folder / "own.safetensors"]


def _read_weights(folder: Path) -> None:
    FinalWeights(RunFolder(folder)).read()
    for name in ("published.pth", "own.safetensors"):
        try:
            load_initial_weights(FrameNetwork(NETWORK), folder / name)
        except UserError as error:
            log.info("%s", error)


def _people(folder: Path) -> list[Path]:
    (folder / "config.toml").write_text(
        '[source]\nkind = "simulation"\nperspectives = 3\nframe_shape_px = [32, 32]\n[trainer]\nlearning_rate = 1e-3\n'
    )
    (folder / "map.toml").write_text(
        '[frames]\npath = "/entry/data"\n[positions]\npath = "/entry/positions"\nunit = "um"\n'
        '[geometry]\nenergy = {value = 8.8, unit = "keV"}\n'
    )
    np.save(folder / "positions.npy", np.random.default_rng(0).random((5, 2)))
    np.savez(folder / "positions.npz", positions=np.random.default_rng(0).random((5, 2)))
    (folder / "positions.txt").write_text("# y x\n" + "\n".join(f"{at} {at / 2}" for at in range(9)))
    np.save(folder / "probe.npy", np.ones((1, 4, 4), np.complex64))
    images = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in (2, 3, 3)) + bytes(18)
    (folder / "images.gz").write_bytes(gzip.compress(images))
    return sorted(folder.iterdir())


def _read_people(folder: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "config.toml": lambda path: load_config(file=path),
        "map.toml": load_dataset_map,
        "positions.npy": read_table,
        "positions.npz": lambda path: read_table(path, "positions"),
        "positions.txt": read_table,
        "probe.npy": load_probe,
        "images.gz": lambda path: read_idx(path, dimensions=3),
    }
    refused = []
    for name, read in readers.items():
        try:
            read(folder / name)
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _arrivals(folder: Path) -> list[Path]:
    writer = ArrivalsWriter(folder, ["detector", "positions"])
    for number in range(9):
        writer.append(number % 2, float(number), [b"head", bytes(number * 10)])
    writer.end_file()
    return sorted(folder.iterdir())


def _read_arrivals(folder: Path) -> None:
    with closing(ArrivalsReader(folder)) as reader:
        for message in reader.read():
            assert sum(map(len, message.parts)) <= 1000


def _experiment(folder: Path) -> list[Path]:
    case = CaseFolder(folder / "case")
    case.path.mkdir(parents=True)
    case.finish({"top1": 0.5})
    case.note_progress(3, 9)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_experiment(folder: Path) -> None:
    case = CaseFolder(folder / "case")
    done, total = case.progress()
    assert isinstance(done, int)
    assert total is None or isinstance(total, int)
    figures = case.figures()
    assert figures is None or isinstance(figures, dict)


KEPT: dict[str, Kept] = {
    "run": Kept(_run_files, _resume),
    "checkpoints": Kept(_checkpoints, _go_on),
    "images": Kept(_images, _see_images),
    "outcomes": Kept(_outcomes, _read_outcomes),
    "kept perspectives": Kept(_kept, _read_kept),
    "tasks": Kept(_tasks, lambda folder: TaskRecords(RunFolder(folder)).read()),
    "weights": Kept(_weights, _read_weights),
    "of people": Kept(_people, _read_people),
    "arrivals": Kept(_arrivals, _read_arrivals),
    "experiments": Kept(_experiment, _read_experiment),
}


def damaged(data: bytes, chance: random.Random) -> bytes:  # noqa: PLR0911 - a way each
    """Return the content of a file with something wrong in it."""
    way = chance.randrange(10)
    place = chance.randrange(min(len(data), chance.choice([64, 600, 1 << 30])) + 1) if data else 0
    if way == 0:
        return data[:place]
    if way == 1:
        return chance.choice([b"", b"\0" * len(data), b"\xff" * 40, b"{}", b"[]", b"null", b"0", b'""', b"[" * 5000])
    if way in (2, 3):  # another number
        numbers = list(re.finditer(rb"\d+(\.\d+)?", data[:5000]))
        if not numbers:
            return data[:place]
        chosen = chance.choice(numbers)
        return data[: chosen.start()] + chance.choice(NUMBERS + TEXTS) + data[chosen.end() :]
    if way == 4:
        return data[:place] + chance.choice(TOKENS + TEXTS) + data[place:]
    if way == 5:
        return data[:place] + data[place + chance.randrange(1, 40) :]
    if way == 6:
        other = chance.randrange(len(data) + 1)
        return data[:place] + data[min(place, other) : max(place, other)] + data[place:]
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 9])):
        if changed:
            at = min(chance.randrange(min(len(data), chance.choice([64, 1 << 30])) + 1), len(changed) - 1)
            changed[at] = chance.choice([changed[at] ^ 1 << chance.randrange(8), 0, 255, chance.randrange(256)])
    return bytes(changed)


def damaged_hdf5(path: Path, chance: random.Random) -> bytes:
    """Return an HDF5 file with one attribute or dataset that no edge writes."""
    wild: list[Any] = [2**63, -1, np.nan, np.inf, "text", [], [1, 2, 3], h5py.Empty("f4"), np.zeros((2, 2, 2)), 1e300]
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        item = chance.choice([file, *(file[name] for name in names)])
        if item.attrs and chance.random() < 0.6:
            item.attrs[chance.choice(list(item.attrs))] = chance.choice(wild)
        elif names:
            name = chance.choice(names)
            del file[name]
            if chance.random() < 0.7:
                file[name] = chance.choice(wild)
    return path.read_bytes()


@dataclass(frozen=True)
class Fault:
    """What a reader has raised that it must not."""

    number: int
    what: str
    said: str


class Campaign:
    """Damages one file after another.

    Args:
        folder: for files; emptied again and again.
        seed: the same number is the same damage.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._whole: dict[str, list[Path]] = {}

    def damage(self, number: int) -> tuple[str, Fault | None]:
        """Damage a file; return what became of it, and the fault if it is one."""
        chance = random.Random(f"{self._seed}.{number}")
        name = list(KEPT)[number % len(KEPT)]
        whole = self._folder / "whole" / name / "run"
        if name not in self._whole:
            whole.mkdir(parents=True)
            self._whole[name] = [path.relative_to(whole) for path in KEPT[name].write(whole)]
        place = self._folder / "damaged" / "run"
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(whole, place)
        path = place / chance.choice(self._whole[name])
        inside = path.suffix == ".h5" and chance.random() < 0.5
        path.write_bytes(damaged_hdf5(path, chance) if inside else damaged(path.read_bytes(), chance))
        began_s = time.process_time()
        try:
            KEPT[name].read(place)
        except UserError as error:
            if "\n" in str(error) or not str(error).isprintable():
                return "fault", Fault(number, f"{name}: {path.name}", repr(str(error)))
            return "told", None
        except Exception:  # noqa: BLE001 - whatever it is, it is a fault
            return "fault", Fault(number, f"{name}: {path.name}", traceback.format_exc())
        if time.process_time() - began_s > SLOWEST_S:
            return "fault", Fault(number, f"{name}: {path.name}", "took too long")
        return "read", None


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="files in all, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of counts and of what failed")
    parser.add_argument("--only", type=int, help="damage this file alone and show what is said", metavar="NUMBER")
    options = parser.parse_args()
    logging.disable()
    torch.set_num_threads(1)
    work: Path = options.work or Path(tempfile.gettempdir()) / f"mutated-kept-files-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign(Path(scratch), options.seed)
        if options.only is not None:
            print(*campaign.damage(options.only), sep="\n")
            return 0
        return _run(campaign, options.count, work)


def _run(campaign: Campaign, count: int, work: Path) -> int:
    counts_file, failures = work / "counts.json", work / "failures.jsonl"
    counts: Counter[str] = Counter(json.loads(counts_file.read_text()) if counts_file.exists() else {})
    began_s = saved_s = time.monotonic()
    for number in range(counts.total(), count):
        outcome, fault = campaign.damage(number)
        counts[outcome] += 1
        if fault is not None:
            with failures.open("a") as lines:
                lines.write(json.dumps([fault.number, fault.what, fault.said]) + "\n")
        if time.monotonic() - saved_s > SAVED_EVERY_S or fault is not None or number + 1 == count:
            saved_s = time.monotonic()
            counts_file.write_text(json.dumps(counts))
    print(
        f"{dict(counts)} in {time.monotonic() - began_s:.0f} s; what failed: {failures if counts['fault'] else 'none'}"
    )
    return 1 if counts["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
