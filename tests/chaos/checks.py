"""What must hold of a run: its files are whole, every frame was used once, and its exit status says how it went."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import psutil
import safetensors
from run import FRAMES, FRAMES_EACH, PATCH_PX, PERSPECTIVES
from strikes import Blow, Kind
from victims import Victim

from ptychoflow.streaming.durable_file import UNFINISHED_SUFFIX
from ptychoflow.streaming.events import TrainingResumed
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.online.frame_indices import indices_in

SHARED_MEMORY = Path("/dev/shm")
TRANSIENT = ("spool/stream/", "spool/ground_truth/", "logs/")
"""Nobody reads these after the process that wrote them."""


def _read_h5(path: Path) -> None:
    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def _read_png(path: Path) -> None:
    content = path.read_bytes()
    if content[:4] != b"\x89PNG" or b"IEND" not in content[-16:]:
        raise ValueError("it has no beginning or no end")


def _read_safetensors(path: Path) -> None:
    with safetensors.safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 this is no mapping
            file.get_slice(name)


def _read_html(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("it has no end")


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".toml": lambda path: tomllib.loads(path.read_text(encoding="utf-8")),
    ".msgpack": lambda path: msgspec.msgpack.decode(path.read_bytes()),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".h5": _read_h5,
    ".png": _read_png,
    ".html": _read_html,
    ".safetensors": _read_safetensors,
}


def half_written(folder: Path, *, completed: bool) -> Iterator[str]:
    """Yield the files of a run that are not whole; one that bears the name of something unfinished may be, for now."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith(TRANSIENT) or not path.is_file():
            continue
        if UNFINISHED_SUFFIX in name:
            if completed:
                yield f"{name} was left behind"
            continue
        try:
            READERS.get(path.suffix, lambda _: None)(path)
        except Exception as error:  # noqa: BLE001 whatever a reader says of a damaged file
            yield f"{name} is not whole: {error}"


def wrong_counts(folder: RunFolder) -> Iterator[str]:
    """Yield what is wrong with the ledger of a run that has ended well."""
    if not folder.summary.exists():
        yield "there is no summary"
        return
    summary = json.loads(folder.summary.read_bytes())
    frames = summary["frames"]
    if [frames[key] for key in ("acquired", "published", "inferred")] != [FRAMES] * 3:
        yield f"of {FRAMES} frames, {frames}"
    if frames["lost"] or frames["rejected"] or frames["unlabelled"]:
        yield f"lost, rejected or unlabelled frames: {frames}"
    if frames["trained"] + frames["validation"] + frames["void"] + frames["held_out"] != FRAMES:
        yield f"not every frame was learnt from: {frames}"
    told = sum(isinstance(one.event, TrainingResumed) for one in TelemetryLog(folder.telemetry))
    counted = len(summary["training"]["resumed_from_steps"])
    if told != counted:
        yield f"training was resumed {told} times, the summary says {counted} times"


def not_once(folder: RunFolder) -> Iterator[str]:
    """Yield which frames a run that has ended well has not used exactly once, by their ids and by their places."""
    if not folder.summary.exists():
        return
    frames = json.loads(folder.summary.read_bytes())["frames"]
    checkpoint = newest(folder.checkpoints)
    if checkpoint is None:
        yield "there is no checkpoint"
        return
    shards = [shard["stream"] for shard in checkpoint.shards()]
    ids = {
        (int(index), frame)
        for shard in shards
        for index, runs in shard["done"].items()
        for frame in indices_in(runs.numpy()).tolist()
    }
    trained, validation = (sum(shard[key] for shard in shards) for key in ("trained", "validation"))
    if (trained, validation) != (frames["trained"], frames["validation"]):
        yield f"the model was trained on {trained} and validated with {validation}, the ledger says {frames}"
    if len(ids) != trained + validation:
        yield f"{trained} samples trained on and {validation} for validation are of {len(ids)} frames"
    expected = {(index, frame) for index in range(PERSPECTIVES) for frame in range(FRAMES_EACH)}
    if not ids <= expected or len(expected - ids) != frames["void"] + frames["held_out"]:
        yield f"not among the frames: {sorted(ids - expected)}; not learnt from: {sorted(expected - ids)}"
    for index in range(PERSPECTIVES):
        yield from _not_imaged_once(folder.image_file(index))


def _not_imaged_once(path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{path.name} is missing"
        return
    with h5py.File(path) as file:
        for kind in ("first_pass", "refreshed"):
            # one patch covers a pixel more where its position is not an integer
            covered = int(file[kind]["coverage"][()].sum()) if kind in file else 0
            if covered != FRAMES_EACH * (PATCH_PX + 1) ** 2:
                yield f"{path.name}: {kind} is made of {covered / (PATCH_PX + 1) ** 2:.2f} of {FRAMES_EACH} frames"


def wrong_status(status: int, said: str, folder: RunFolder, blows: list[Blow], *, again: bool) -> Iterator[str]:
    """Yield where the exit status is not what the manual says, and what no user should see.

    Args:
        status: of the command, -N after signal N.
        said: what it printed.
        folder: of the run.
        blows: that it got since its start.
        again: whether it was resumed.
    """
    kinds = {blow.strike.kind for blow in blows if blow.landed}
    killed = any(blow.strike.kind is Kind.KILL and Victim.LAUNCHER in blow.struck for blow in blows)
    began = folder.log("launcher").exists()
    if "Traceback" in said and (began or Kind.INTERRUPT not in kinds):
        yield f"a traceback: {said[-2000:]}"
    ended_well = folder.summary.exists() and json.loads(folder.summary.read_bytes())["ended_well"]
    if status == 0 and not ended_well:
        yield "exit status 0, but the summary does not say that it ended well"
    allowed = {0}
    if status < 0 and killed:
        allowed = {-9}
    elif Kind.INTERRUPT in kinds:
        # before Python has set up what catches it, the signal ends the process
        allowed |= {130, 1} if began else {130, 1, -1, -2, -15}
    elif kinds - {Kind.STOP, Kind.BROKEN_MESSAGES}:
        allowed |= {1, 2} if Kind.FULL_DISK in kinds else {1}
    if status not in allowed:
        yield f"exit status {status} after {', '.join(sorted(kinds)) or 'nothing'}{', resumed' * again}: {said[-600:]}"


def left_in_system() -> Iterator[str]:
    """Yield what a run has left that is no process and no file of its folder; only in a place of one's own."""
    for one in psutil.net_connections("inet"):
        if one.status == psutil.CONN_LISTEN:
            yield f"port {one.laddr.port} is still open"
    for one in psutil.net_connections("unix"):
        if isinstance(one.laddr, str) and one.laddr.startswith("/"):
            yield f"{one.laddr} is still open"
    for path in SHARED_MEMORY.iterdir():
        yield f"{path} is still there"
