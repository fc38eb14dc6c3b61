"""`RehearsalLoader`: what it yields is what a loop of take and offer would join, and outputs find their items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from moved_tensors import Moved
from support import wait_until
from torch import distributed as dist
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from ptychoflow.buffer import Field, RehearsalBatch, RehearsalBuffer, RehearsalLoader, Representatives, Schema

RunRanks = Callable[..., list[Any]]
SCHEMA = Schema(number=Field((), "int64"), image=Field((2, 2)))
DARK = Schema(**SCHEMA, output=Field((3,), "float16"))
SETTINGS: dict[str, Any] = {"capacity": 24, "representatives": 6, "candidates": 3, "classes": 4, "timeout_s": 20.0}


class Samples(TensorDataset):
    """Numbers, images that say which number it is, and classes; a sample is a dictionary."""

    def __init__(self, count: int) -> None:
        numbers = torch.arange(count)
        super().__init__(numbers, numbers.view(-1, 1, 1).expand(count, 2, 2).float(), numbers % 4)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(zip(("number", "image", "class"), super().__getitem__(index), strict=True))


def output_of(numbers: torch.Tensor) -> torch.Tensor:
    return torch.stack([numbers, numbers + 0.5, -numbers], dim=1).float().requires_grad_()


def check_batch(batch: RehearsalBatch) -> None:
    """New samples first; everything about a sample says the same number."""
    numbers = batch["number"]
    assert (batch["image"] == numbers.view(-1, 1, 1)).all()
    assert batch.labels is not None
    assert torch.equal(batch.labels, numbers % 4)
    assert batch.rehearsed.tolist() == [False] * batch.new + [True] * (len(numbers) - batch.new)
    assert ((batch.ids >= 0) == batch.rehearsed).all()
    assert torch.equal(batch.loaded["number"], numbers[: batch.new])
    if "output" in batch:
        expected = output_of(numbers).half() * batch.rehearsed.view(-1, 1)
        assert torch.equal(batch["output"], expected)


def joined(loaded: dict[str, torch.Tensor], drawn: Representatives) -> list[Any]:
    labels = torch.cat([loaded["class"], drawn.labels])
    tensors = [torch.cat([loaded[name], drawn.tensors[name]]) for name in SCHEMA]
    return [part.tolist() for part in (*tensors, labels, drawn.ids)]


def seen_in(batch: RehearsalBatch) -> list[Any]:
    assert batch.labels is not None
    return [part.tolist() for part in (*(batch[name] for name in SCHEMA), batch.labels, batch.ids[batch.rehearsed])]


def by_hand(loader: DataLoader[Any], buffer: RehearsalBuffer) -> Iterator[list[Any]]:
    """The loop of an epoch without RehearsalLoader."""
    for loaded in loader:
        drawn = buffer.take()
        found = joined(loaded, drawn)
        kept = {name: loaded[name] for name in SCHEMA}
        if "output" in buffer.schema:
            kept["output"] = output_of(loaded["number"]).half()
        buffer.offer(kept, labels=loaded["class"])
        yield found


def by_loader(loader: DataLoader[Any], buffer: RehearsalBuffer) -> Iterator[list[Any]]:
    rehearsal = RehearsalLoader(loader, buffer, labels="class")
    for batch in rehearsal:
        check_batch(batch)
        if "output" in buffer.schema:
            rehearsal.store(output=output_of(batch["number"]))
        yield seen_in(batch)


@pytest.mark.parametrize("schema", [SCHEMA, DARK])
def test_it_yields_what_a_loop_of_take_and_offer_joins(schema: Schema) -> None:
    found: dict[str, list[Any]] = {}
    for epoch_of in (by_hand, by_loader):
        shuffle = torch.Generator().manual_seed(5)
        loader = DataLoader(Samples(37), batch_size=5, shuffle=True, generator=shuffle)
        with RehearsalBuffer(schema, **SETTINGS) as buffer:
            found[epoch_of.__name__] = [batch for _ in range(3) for batch in epoch_of(loader, buffer)]
    assert found["by_loader"] == found["by_hand"]
    assert [len(numbers) for numbers, *_ in found["by_loader"]] == [5, 8, *[11] * 5, 8, *[*[11] * 7, 8] * 2]


def in_turns(rank: int, schema: Schema) -> dict[str, list[Any]]:
    """Two epochs on every rank, one step of one rank at a time, so that both loops draw from the same stores."""
    found: dict[str, list[Any]] = {"by_hand": [], "by_loader": []}
    for epoch_of in (by_hand, by_loader):
        sampler: DistributedSampler[Any] = DistributedSampler(Samples(40), shuffle=True, seed=3)
        loader = DataLoader(Samples(40), batch_size=6, sampler=sampler)
        draws = 0
        with RehearsalBuffer(schema, transport="tcp", **SETTINGS) as buffer:
            for epoch in range(2):
                RehearsalLoader(loader, buffer).set_epoch(epoch)
                steps = epoch_of(loader, buffer)
                for _ in range(len(loader)):
                    draws += 1
                    for turn in range(dist.get_world_size()):
                        if turn == rank:
                            found[epoch_of.__name__].append(next(steps))
                            wait_until(lambda: buffer.stats().draws == draws)  # noqa: B023  before it changes
                        know_each_other(buffer)
    return found


def know_each_other(buffer: RehearsalBuffer) -> None:
    """Returns once every rank knows how many items every other has."""
    sizes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(sizes, buffer.stats().size)
    wait_until(lambda: buffer.stats().size_per_rank == dict(enumerate(sizes)))
    dist.barrier()


@pytest.mark.parametrize("schema", [SCHEMA, DARK])
def test_ranks_with_distributed_samplers_are_joined_alike(run_ranks: RunRanks, schema: Schema) -> None:
    results = run_ranks(in_turns, 2, schema)
    for rank, found in enumerate(results):
        assert found["by_loader"] == found["by_hand"]
        second = 9 + 3 * rank  # when rank 0 drew for it, rank 1 had nothing yet
        assert [len(numbers) for numbers, *_ in found["by_loader"]] == [6, second, 12, 8, *[12] * 3, 8]
    ids = {item for found in results for *_, ids in found["by_loader"] for item in ids}
    assert {item & 1 for item in ids} == {0, 1}, "items of both ranks were drawn"
    first_epoch = [sorted(number for numbers, *_ in found["by_hand"][:4] for number in numbers) for found in results]
    assert first_epoch[0] != first_epoch[1]


def dark_on_ranks(rank: int) -> int:
    """Ranks that do not wait for each other; their loaders differ in length."""
    loader = DataLoader(Samples(50 + 7 * rank), batch_size=4, shuffle=True)
    rehearsed = 0
    with RehearsalBuffer(DARK, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(loader, buffer, labels="class")
        for _ in range(4):
            for batch in rehearsal:
                check_batch(batch)
                rehearsal.store(output=output_of(batch["number"][: batch.new]))
                rehearsed += int(batch.rehearsed.sum())
        dist.barrier()
    return rehearsed


def test_outputs_come_back_with_their_items_from_any_rank(run_ranks: RunRanks) -> None:
    for rehearsed in run_ranks(dark_on_ranks, 2):
        assert rehearsed > 200


def numbers_of(count: int, **settings: Any) -> DataLoader[Any]:
    return DataLoader(Samples(count), batch_size=4, **settings)


def test_forgetting_to_store_is_told_at_the_next_batch() -> None:
    with RehearsalBuffer(DARK, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(numbers_of(8), buffer, labels="class")
        batches = iter(rehearsal)
        next(batches)
        with pytest.raises(RuntimeError, match=r"call store\(output=...\) after every forward pass"):
            next(batches)
        with pytest.raises(RuntimeError, match=r"call store\(output=...\)"):
            next(iter(rehearsal))
        rehearsal.store(output=torch.zeros(4, 3))
        assert next(iter(rehearsal)).rehearsed.sum() == 3


def test_stores_out_of_order_are_refused() -> None:
    with RehearsalBuffer(DARK, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(numbers_of(8), buffer, labels="class")
        with pytest.raises(RuntimeError, match="no batch to store"):
            rehearsal.store(output=torch.zeros(4, 3))
        next(iter(rehearsal))
        with pytest.raises(ValueError, match=r"missing fields \['output'\], unknown fields \['logits'\]"):
            rehearsal.store(logits=torch.zeros(4, 3))
        with pytest.raises(ValueError, match=r"brings \['image'\] already: store only \['output'\]"):
            rehearsal.store(output=torch.zeros(4, 3), image=torch.zeros(4, 2, 2))
        rehearsal.store(output=torch.zeros(4, 3))
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(numbers_of(8), buffer, labels="class")
        next(iter(rehearsal))
        with pytest.raises(RuntimeError, match="no batch to store"):
            rehearsal.store()


def test_a_policy_that_needs_scores_is_given_them_by_store() -> None:
    with RehearsalBuffer(SCHEMA, policy="loss_aware", **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(numbers_of(12), buffer, labels="class")
        batches = iter(rehearsal)
        batch = next(batches)
        rehearsal.store(scores=batch["number"].float())
        next(batches)
        with pytest.raises(RuntimeError, match=r"store\(scores=...\)"):
            next(batches)
        state = rehearsal.state_dict()["buffer"]
        assert torch.equal(state["scores"], state["items"]["number"].double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"type list: name their parts by fields="),
        ({"fields": ("x", "y", "z")}, r"none of the buffer's \['number', 'image'\]"),
        ({"fields": ("number", "image", "class"), "labels": "label"}, "no labels 'label'"),
        ({"fields": ("number", "image")}, r"batches have 3 parts, but fields names \('number', 'image'\)"),
    ],
)
def test_batches_that_do_not_say_what_they_are_are_refused(settings: dict[str, Any], message: str) -> None:
    loader = DataLoader(TensorDataset(*Samples(8).tensors), batch_size=4)
    with (
        RehearsalBuffer(SCHEMA, **SETTINGS) as buffer,
        pytest.raises(ValueError, match=message),
    ):
        next(iter(RehearsalLoader(loader, buffer, **settings)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 2, 2), np.float32)}, "Field 'image' is a ndarray, not a tensor"),
        ({"class": [0, 1, 2, 3]}, "labels must be 4 integers in a tensor, not a list"),
    ],
)
def test_what_is_no_tensor_is_told(change: dict[str, Any], message: str) -> None:
    batch = {"number": torch.arange(4), "image": torch.zeros(4, 2, 2), "class": torch.arange(4)}
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer, pytest.raises(ValueError, match=message):
        next(iter(RehearsalLoader([batch | change], buffer, labels="class")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": 0.3 * 80}, r"capacity is 24\.0; it must be a whole number"),
        ({"candidates": 1.5}, r"candidates is 1\.5; it must be a whole number"),
        ({"seed": None}, "seed is None; it must be a whole number"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
    ],
)
def test_sizes_that_are_no_whole_numbers_are_told(change: dict[str, Any], message: str) -> None:
    """A capacity is often a share of a data set, which is a float."""
    with pytest.raises(ValueError, match=message):
        RehearsalBuffer(SCHEMA, **SETTINGS | change)


@pytest.mark.parametrize(
    "fields",
    [("number", "image", "class"), lambda loaded: {"number": loaded[0], "image": loaded[1], "class": loaded[2]}],
)
def test_tuples_are_named_by_their_user(fields: Any) -> None:
    loader = DataLoader(TensorDataset(*Samples(8).tensors), batch_size=4)
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        first, second = RehearsalLoader(loader, buffer, fields=fields, labels="class")
    assert torch.equal(first["number"], torch.arange(4))
    assert torch.equal(first.loaded[0], torch.arange(4))
    assert second.rehearsed.tolist() == [False] * 4 + [True] * 3
    assert (second["image"] == second["number"].view(-1, 1, 1)).all()


def test_what_goes_to_the_host_is_waited_for() -> None:
    """A copy from a GPU that is not waited for may be read before it has arrived."""
    loader = [{name: tensor.as_subclass(Moved) for name, tensor in Samples(8)[slice(0, 8)].items()}] * 2
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        Moved.moves.clear()
        assert len(list(RehearsalLoader(loader, buffer, labels="class"))) == 2
    to_host = [non_blocking for device, non_blocking in Moved.moves if device.type == "cpu"]
    assert len(to_host) >= 2 * len(SCHEMA)
    assert not any(to_host)


def test_batches_belong_to_the_caller() -> None:
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        batches = list(RehearsalLoader(numbers_of(40), buffer, labels="class"))
        for batch in batches:
            check_batch(batch)
        copy = batches[5].to("meta")
    assert isinstance(copy, RehearsalBatch)
    moved = [*copy.values(), copy.rehearsed, copy.labels, copy.ids]
    assert all(tensor is not None and tensor.is_meta for tensor in moved)
    assert (copy.new, copy.loaded) == (batches[5].new, batches[5].loaded)


def test_a_framework_may_make_batches_anew() -> None:
    """Hugging Face's Trainer, for one, makes `type(batch)` of the tensors that it has moved."""
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(numbers_of(8), buffer, labels="class")
        assert rehearsal.batch is None
        for batch in rehearsal:
            assert rehearsal.batch is batch
            copy = type(batch)({name: tensor.clone() for name, tensor in batch.items()})
            assert torch.equal(copy["number"], batch["number"])
            assert list(copy.to("meta")) == list(SCHEMA)
            with pytest.raises(RuntimeError, match=r"is in loader\.batch"):
                copy.rehearsed  # noqa: B018


def test_without_labels_there_are_none() -> None:
    with RehearsalBuffer(SCHEMA, **SETTINGS | {"classes": 1}) as buffer:
        for batch in RehearsalLoader(numbers_of(8), buffer):
            assert batch.labels is None


def test_it_is_the_loader_in_all_else() -> None:
    batch_sampler = BatchSampler(DistributedSampler(Samples(20), num_replicas=2, rank=0), 4, drop_last=False)
    loader = DataLoader(Samples(20), batch_sampler=batch_sampler)
    with RehearsalBuffer(SCHEMA, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(loader, buffer)
        rehearsal.set_epoch(7)
        assert batch_sampler.sampler.epoch == 7  # type: ignore[attr-defined]
        assert len(rehearsal) == len(loader) == 3
        assert rehearsal.dataset is loader.dataset
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            rehearsal.nothing  # noqa: B018


class CountingLoader:
    """A loader that knows where it stands."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            self.position += 1
            yield Samples(8)[slice(0, 8)]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def test_it_goes_on_from_its_state() -> None:
    with RehearsalBuffer(DARK, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(CountingLoader(), buffer, labels="class")
        for batch, _ in zip(rehearsal, range(5), strict=False):
            rehearsal.store(output=output_of(batch["number"]))
        state = rehearsal.state_dict()
    with RehearsalBuffer(DARK, **SETTINGS) as buffer:
        rehearsal = RehearsalLoader(CountingLoader(), buffer, labels="class")
        rehearsal.load_state_dict(state)
        batch = next(iter(rehearsal))
        check_batch(batch)
        assert batch.rehearsed.sum() == 6
        assert rehearsal.position == state["loader"]["position"] + 1
        assert set(batch.ids[batch.rehearsed].tolist()) <= set(state["buffer"]["ids"].tolist())


def drawn_after_loading(rank: int) -> list[int]:
    """The ranks whose items the first draw after a checkpoint has; rank 1 loads once it sees that rank 0 has."""
    settings = SETTINGS | {"transport": "tcp"}
    with RehearsalBuffer(SCHEMA, **settings) as buffer:
        rehearsal = RehearsalLoader(CountingLoader(), buffer, labels="class")
        for _ in zip(rehearsal, range(2), strict=False):
            pass
        state = rehearsal.state_dict()
        dist.barrier()
    with RehearsalBuffer(SCHEMA, **settings) as buffer:
        rehearsal = RehearsalLoader(CountingLoader(), buffer, labels="class")
        if rank == 1:
            wait_until(lambda: buffer.stats().size_per_rank[0] > 0)
        rehearsal.load_state_dict(state)
        drawn = buffer.take().ids.tolist()
        dist.barrier()
    return sorted({item & 1 for item in drawn})


def test_the_first_batch_after_loading_is_drawn_from_what_all_ranks_have_loaded(run_ranks: RunRanks) -> None:
    """A draw of six from one rank's items alone would be one in many hundreds."""
    assert run_ranks(drawn_after_loading, 2) == [[0, 1]] * 2
