"""What a rank knows of the stream, as the state that a checkpoint holds, and back on any number of ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import StreamStart
from ptychoflow.trainer.checkpoints.checkpoint import (
    Checkpoint,
    at,
    newest,
    remove_unfinished,
    set_damaged_aside,
)
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.online.ingest import FormatOf, Progress, SampleIngest
from ptychoflow.trainer.online.sample_queue import SampleCounts
from ptychoflow.trainer.settings import StreamSettings

VALIDATION_FILES = "validation_files"


def open_ingest(
    settings: StreamSettings, folder: Path, rank: Rank, format_of: FormatOf, *, spool_dir: Path
) -> tuple[Checkpoint | None, SampleIngest]:
    """Return the newest checkpoint in a folder, if there is one, and the ingest that goes on from it. Collective.

    Raises:
        UserError: the checkpoint is damaged, or of another version of the program.
    """
    checkpoint = _agree_on_newest(folder, rank) if settings.checkpoint.enabled else None
    queue_samples, until_checkpoint = settings.queue_samples, settings.checkpoint.enabled
    pinned = rank.device.type == "cuda"
    if checkpoint is None:
        return None, SampleIngest(
            format_of,
            queue_samples=queue_samples,
            until_checkpoint=until_checkpoint,
            spool_dir=spool_dir,
            pinned=pinned,
        )
    streams = [shard["stream"] for shard in checkpoint.shards()]
    return checkpoint, SampleIngest(
        format_of,
        queue_samples=queue_samples,
        until_checkpoint=until_checkpoint,
        spool_dir=spool_dir,
        earlier=join_progress(streams, rank=rank.rank, ranks=rank.world_size),
        validation=load_validation(checkpoint, validation_files(checkpoint, rank)),
        pinned=pinned,
    )


def validation_files(checkpoint: Checkpoint, rank: Rank) -> list[str]:
    """Return the names of the validation files that a rank takes over."""
    shards = checkpoint.shards()[rank.rank :: rank.world_size]
    return [name for shard in shards for name in shard[VALIDATION_FILES]]


def _agree_on_newest(folder: Path, rank: Rank) -> Checkpoint | None:
    """Clear away what was not completed and let rank 0 choose for all."""
    step = torch.tensor([-1])
    if rank.rank == 0:
        remove_unfinished(folder)
        set_damaged_aside(folder)
        if (found := newest(folder)) is not None:
            step[0] = found.step
    if dist.is_initialized():
        dist.broadcast(step, 0)
    return at(folder, int(step)) if step >= 0 else None


def progress_state(progress: Progress) -> State:
    """Return the state of one rank's progress."""
    return {
        "scan": None if progress.scan is None else msgspec.json.encode(progress.scan).decode(),
        "frame_dtype": progress.frame_dtype,
        "done": {str(perspective): torch.from_numpy(runs) for perspective, runs in progress.done.items()},
        "trained": progress.counts.trained,
        "validation": progress.counts.validation,
        "duplicates": progress.counts.duplicates,
        "rejected": list(progress.counts.rejected.items()),
        "ended_perspectives": sorted(progress.ended_perspectives),
    }


def validation_state(samples: Mapping[int, Sequence[Arrays]]) -> State:
    """Return validation samples by perspective as state."""
    return {
        f"{perspective}.{number}": {name: torch.from_numpy(array) for name, array in arrays.items()}
        for perspective, parts in samples.items()
        for number, arrays in enumerate(parts)
    }


def join_progress(shards: Sequence[State], *, rank: int, ranks: int) -> Progress:
    """Return with what a rank goes on: it knows the frames of all, and takes over its share of the counts.

    Args:
        shards: states of all ranks of the run before.
        rank: the rank that goes on.
        ranks: their number now.
    """
    first = shards[0]
    done: defaultdict[int, list[torch.Tensor]] = defaultdict(list)
    for shard in shards:
        for perspective, runs in shard["done"].items():
            # a checkpoint of an earlier version has every index by itself
            done[int(perspective)].append(runs if runs.ndim == 2 else torch.stack([runs, runs], dim=1))
    return Progress(
        scan=None if first["scan"] is None else msgspec.json.decode(first["scan"], type=StreamStart),
        frame_dtype=next((shard["frame_dtype"] for shard in shards if shard["frame_dtype"]), None),
        done={perspective: torch.cat(parts).numpy() for perspective, parts in done.items()},
        counts=_join_counts(shards[rank::ranks]),
        ended_perspectives=set(first["ended_perspectives"]),
    )


def load_validation(checkpoint: Checkpoint, names: Sequence[str]) -> dict[int, list[Arrays]]:
    """Return the samples in these validation files, by perspective."""
    samples: defaultdict[int, list[Arrays]] = defaultdict(list)
    for file in checkpoint.validation(names):
        for key, arrays in file.items():
            samples[int(key.partition(".")[0])].append({name: tensor.numpy() for name, tensor in arrays.items()})
    return dict(samples)


def _join_counts(shards: Sequence[State]) -> SampleCounts:
    rejected: Counter[str] = Counter()
    for shard in shards:
        rejected.update(dict(shard["rejected"]))
    return SampleCounts(
        trained=sum(shard["trained"] for shard in shards),
        validation=sum(shard["validation"] for shard in shards),
        duplicates=sum(shard["duplicates"] for shard in shards),
        rejected=rejected,
    )
