"""A rank's state as plain tensors, numbers and text; restored as it was, or dealt anew to any number of ranks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.buffer.capacity import class_quotas
from ptychoflow.buffer.generators import Generators
from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.local_store import RANK_BITS, LocalStore
from ptychoflow.buffer.memory import byte_rows
from ptychoflow.buffer.options import Options
from ptychoflow.buffer.resharding import Assignment, keep_ranks, reshard

FORMAT = 2
Shard = Mapping[str, Any]
_log = logging.getLogger(__name__)


def save_shard(store: LocalStore, generators: Generators, *, options: Options, step: int) -> dict[str, object]:
    """Everything that this rank must remember. The items are copied, so the store may go on changing."""
    index = store.index
    return {
        "format": FORMAT,
        "rank": store.rank,
        "world_size": options.world_size,
        "step": step,
        "schema": repr(store.schema),
        "quotas": torch.from_numpy(_own_room(store).copy()),
        "next_number": store.next_number,
        "seen": {str(label): count for label, count in index.seen.items()},
        "items": store.rows.copy_of(index.rows[: index.size]),
        "ids": torch.from_numpy(index.ids[: index.size].copy()),
        "labels": torch.from_numpy(index.labels[: index.size].copy()),
        "places": torch.from_numpy(index.places[: index.size].copy()),
        "scores": torch.from_numpy(index.scores[: index.size].copy()),
        "features": torch.from_numpy(index.live_features()),
        "moved_ids": torch.from_numpy(store.moved_ids.copy()),
        "moved_homes": torch.from_numpy(store.moved_homes.copy()),
        "policy": type(store.policy).__name__,
        "policy_state": store.policy.state_dict(),
        "random_state": generators.state(),
    }


def check_own(state: Shard, store: LocalStore, *, options: Options) -> None:
    """ValueError unless this rank saved the state, in a run on as many ranks, and this buffer has room for it."""
    _check_shard(state, store.rank, options.world_size, store)
    _check_room(_held_per_class([state], options, store), _own_room(store))


def check_shards(shards: Sequence[Shard], store: LocalStore, *, options: Options) -> None:
    """ValueError if the shards are not a whole set that fits this buffer's schema, policy, classes and capacity."""
    if not shards:
        raise ValueError("There are no shards to restore.")
    for rank, shard in enumerate(shards):
        _check_shard(shard, rank, len(shards), store)
    held = _held_per_class(shards, options, store)
    _check_room(held, class_quotas(options.capacity, classes=len(held), rank=0, world_size=1))


def _check_shard(shard: Shard, rank: int, count: int, store: LocalStore) -> None:
    expected = {
        "format": FORMAT,
        "rank": rank,
        "world_size": count,
        "schema": repr(store.schema),
        "policy": type(store.policy).__name__,
    }
    for key, value in expected.items():
        if shard[key] != value:
            raise ValueError(f"Shard {rank} of {count} has {key} {shard[key]!r}; this buffer needs {value!r}.")


def _held_per_class(shards: Sequence[Shard], options: Options, store: LocalStore) -> Ints:
    """Items of every class, (classes,); all in one where classes are open and share the room."""
    labels = torch.cat([shard["labels"] for shard in shards]).numpy()
    if store.policy.open_classes:
        return np.array([len(labels)])
    held: Ints = np.bincount(labels, minlength=options.classes)
    if len(held) > options.classes:
        raise ValueError(f"The shards hold labels up to {len(held) - 1}; this buffer has {options.classes} classes.")
    return held


def _check_room(held: Ints, room: Ints) -> None:
    full = np.flatnonzero(held > room)
    if len(full):
        label = int(full[0])
        raise ValueError(f"The shards hold {held[label]} items of class {label}; there is room for {room[label]}.")


def restore_own(state: Shard, store: LocalStore, generators: Generators, *, options: Options) -> int:
    """Fill the empty store with a checked state of this rank; returns the step at which the run stood."""
    own = np.full(len(state["ids"]), store.rank)
    assignment = Assignment(state["ids"].numpy(), np.zeros_like(own), np.arange(len(own)), own)
    exact = _had_this_room(state, _own_room(store), store, options)
    _fill(store, [state], assignment, exact=exact)
    store.moved_ids, store.moved_homes = state["moved_ids"].numpy().copy(), state["moved_homes"].numpy().copy()
    store.next_number = state["next_number"]
    _go_on(state, store, generators, exact=exact)
    return int(state["step"])


def restore_shards(shards: Sequence[Shard], store: LocalStore, generators: Generators, *, options: Options) -> int:
    """Fill the empty store with this rank's part of checked shards; returns the step at which the run stood."""
    rooms = quotas_per_rank(store, options)
    exact = len(shards) == options.world_size and all(
        _had_this_room(shard, room, store, options) for shard, room in zip(shards, rooms, strict=True)
    )
    assignment = keep_ranks(shards) if exact else reshard(shards, rooms)
    _fill(store, shards, assignment, exact=exact)
    _remember_moves(store, assignment)
    store.next_number = max(shard["next_number"] for shard in shards)
    step = int(max(shard["step"] for shard in shards))
    if exact:
        _go_on(shards[store.rank], store, generators, exact=True)
    else:
        _share_streams(store, shards, capacity=options.capacity)
        numbers = (len(shards), options.world_size, options.capacity)
        _log.info("buffer restored from %d ranks onto %d, with room for %d items: random state begins anew", *numbers)
        generators.reseed(options.seed, store.rank, options.world_size, step)
    return step


def _had_this_room(shard: Shard, room: Ints, store: LocalStore, options: Options) -> bool:
    """Whether the shard's items stood in this room, (classes,), so that they may stand again as they stood."""
    if "quotas" in shard:
        return np.array_equal(shard["quotas"].numpy(), room)
    held = _held_per_class([shard], options, store)  # older shards do not tell: it is enough that their items fit
    return bool((held <= room).all())


def _fill(store: LocalStore, shards: Sequence[Shard], assignment: Assignment, *, exact: bool) -> None:
    """Copy this rank's items shard by shard, so that one shard at a time needs to be read."""
    mine = np.flatnonzero(assignment.homes == store.rank)
    mine = mine[np.argsort(assignment.shards[mine], kind="stable")]
    targets = np.array(store.free.reserve(len(mine)), np.int64)
    columns: dict[str, list[npt.NDArray[Any]]] = {"labels": [], "places": [], "scores": [], "features": []}
    for number in np.unique(assignment.shards[mine]).tolist():
        here = assignment.shards[mine] == number
        wanted = assignment.rows[mine[here]]
        for name, rows in store.rows.bytes.items():
            rows[targets[here]] = byte_rows(shards[number]["items"][name])[wanted]
        for name, parts in columns.items():
            parts.append(shards[number][name].numpy()[wanted])
    if len(mine):
        order = np.arange(len(mine)) if exact else np.argsort(assignment.ids[mine], kind="stable")
        known = {name: np.concatenate(parts)[order] for name, parts in columns.items()}
        store.index.load(rows=targets[order], ids=assignment.ids[mine][order], **known, keep_places=exact)
        store.expire_weights()


def _go_on(own: Shard, store: LocalStore, generators: Generators, *, exact: bool) -> None:
    """Continue this rank's own streams, random numbers and policy; `exact` if the items stand as they stood."""
    store.index.seen.update({int(label): count for label, count in own["seen"].items()})
    generators.restore(own["random_state"])
    store.policy.load_state_dict([own["policy_state"]], exact=exact)


def _share_streams(store: LocalStore, shards: Sequence[Shard], *, capacity: int) -> None:
    """Continue the streams of all ranks, each as long as this rank's share of the capacity is of the whole."""
    share = store.index.capacity / capacity
    store.policy.load_state_dict([shard["policy_state"] for shard in shards], exact=False)
    store.policy.take_share(share)
    for shard in shards:
        for label, count in shard["seen"].items():
            store.index.seen[int(label)] += count
    total = 0
    for label, count in sorted(store.index.seen.items()):
        # rounded in sum: else many classes of one sample each would be none
        store.index.seen[label] = round((total + count) * share) - round(total * share)
        total += count


def _remember_moves(store: LocalStore, assignment: Assignment) -> None:
    moved = np.flatnonzero(assignment.ids & ((1 << RANK_BITS) - 1) != assignment.homes)
    moved = moved[np.argsort(assignment.ids[moved])]
    store.moved_ids, store.moved_homes = assignment.ids[moved], assignment.homes[moved]


def _own_room(store: LocalStore) -> Ints:
    """Room on this rank, (classes,); one number for everything where classes are open."""
    return np.array([store.index.capacity]) if store.policy.open_classes else store.index.quotas


def quotas_per_rank(store: LocalStore, options: Options) -> Ints:
    """Room on every rank, shape (ranks, classes); one column for everything where classes are open."""
    ranks = range(options.world_size)
    classes = 1 if store.policy.open_classes else options.classes
    return np.stack(
        [class_quotas(options.capacity, classes=classes, rank=r, world_size=options.world_size) for r in ranks]
    )
