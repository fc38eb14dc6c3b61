"""The buffer in a training loop of one process: what take, offer, update_items and close promise."""

from __future__ import annotations

import pytest
import torch

from ptychoflow.buffer import Field, Policy, RehearsalBuffer, Schema
from ptychoflow.buffer.schema import DTypeName

SCHEMA = Schema(image=Field((1, 4, 4), "uint16"), target=Field((), "float32"))


def batch(first: int, count: int) -> dict[str, torch.Tensor]:
    values = torch.arange(first, first + count)
    return {"image": values.view(-1, 1, 1, 1).expand(count, 1, 4, 4).to(torch.uint16), "target": values.float()}


def make(**settings: object) -> RehearsalBuffer:
    return RehearsalBuffer(SCHEMA, **({"capacity": 40, "representatives": 8, "candidates": 4} | settings))


def test_first_take_is_empty_and_draws_grow_with_the_store() -> None:
    with make() as buffer:
        assert len(buffer.take()) == 0
        sizes = []
        for step in range(4):
            buffer.offer(batch(4 * step, 4))
            sizes.append(len(buffer.take()))
        assert sizes == [4, 8, 8, 8]


def test_items_of_a_draw_are_distinct_and_whole() -> None:
    with make() as buffer:
        for step in range(200):
            representatives = buffer.update(batch(5 * step, 5))
            assert len(set(representatives.ids.tolist())) == len(representatives)
            image = representatives.tensors["image"].long()
            assert torch.equal(image, representatives.tensors["target"].long().view(-1, 1, 1, 1).expand_as(image))


def test_every_item_can_be_drawn_at_once() -> None:
    with make(capacity=12, representatives=12) as buffer:
        for step in range(3):
            buffer.offer(batch(4 * step, 4))
        assert sorted(buffer.take().tensors["target"].tolist()) == list(range(12))


def test_what_take_returned_stays_until_the_next_take() -> None:
    with make() as buffer:
        buffer.offer(batch(0, 4))
        held = buffer.take()
        before = held.tensors["image"].clone()
        for step in range(1, 20):
            buffer.offer(batch(4 * step, 4))
        buffer.state_dict()
        assert torch.equal(held.tensors["image"], before)


def test_caller_may_reuse_its_tensors_at_once() -> None:
    with make(candidates=8) as buffer:
        minibatch = batch(3, 8)
        buffer.offer(minibatch)
        for tensor in minibatch.values():
            tensor.zero_()
        assert sorted(buffer.take().tensors["target"].tolist()) == list(range(3, 11))


def test_offer_none_begins_a_draw_and_stores_nothing() -> None:
    with make() as buffer:
        buffer.offer(batch(0, 4))
        first = buffer.take().ids.tolist()
        buffer.offer(None)
        assert sorted(buffer.take().ids.tolist()) == sorted(first)
        assert buffer.stats().candidates == 4


def test_gradients_are_not_stored() -> None:
    schema = Schema(activation=Field((3,), "float32"))
    with RehearsalBuffer(schema, capacity=4, representatives=4, candidates=4) as buffer:
        buffer.offer({"activation": torch.ones(4, 3, requires_grad=True) * 2})
        assert not buffer.take().tensors["activation"].requires_grad


def test_candidates_are_chosen_among_the_whole_minibatch() -> None:
    with make(capacity=4000, candidates=2, representatives=4000) as buffer:
        for _ in range(1000):
            buffer.offer(batch(0, 8))
        counts = torch.bincount(buffer.take().tensors["target"].long(), minlength=8)
        assert int(counts.sum()) == 2000
        assert ((counts - 250) ** 2 / 250).sum() < 24.3  # chi-square, 7 degrees of freedom, p = 0.001


def test_update_rewrites_what_is_still_there() -> None:
    with make(capacity=4, representatives=4, policy="fifo") as buffer:
        buffer.offer(batch(0, 4))
        old = buffer.take().ids.clone()
        buffer.offer(batch(4, 2))
        kept = buffer.take()
        survivors = [item for item in old.tolist() if item in kept.ids.tolist()]
        assert buffer.update_items(old, target=torch.full((4,), -1.0)) == len(survivors) == 2
        buffer.offer(None)
        after = buffer.take()
        assert sorted(after.tensors["target"].tolist()) == [-1.0, -1.0, 4.0, 5.0]
        assert sorted(after.tensors["image"][:, 0, 0, 0].tolist())[2:] == [4, 5]


DTYPES: list[DTypeName] = [
    "uint8", "uint16", "float16", "bfloat16", "float32", "float64", "complex64", "int64", "bool",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_items_come_out_bit_for_bit(dtype: DTypeName) -> None:
    shapes = {"scalar": (), "vector": (7,), "image": (3, 5), "volume": (2, 3, 4), "hyper": (2, 3, 2, 2)}
    schema = Schema(**{name: Field(shape, dtype) for name, shape in shapes.items()}, number=Field((), "int64"))
    generator = torch.Generator().manual_seed(1)
    size = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    limit = 2 if dtype == "bool" else 256
    stored = {
        name: torch.randint(0, limit, (16, *shape, size), generator=generator, dtype=torch.uint8)
        .view(getattr(torch, dtype))
        .view(16, *shape)
        for name, shape in shapes.items()
    } | {"number": torch.arange(16)}
    with RehearsalBuffer(schema, capacity=16, representatives=16, candidates=16) as buffer:
        buffer.offer(stored)
        drawn = buffer.take().tensors
        order = drawn["number"]
        for name in shapes:
            expected = stored[name].contiguous().view(16, -1).view(torch.uint8).numpy()[order.numpy()]
            assert (drawn[name].contiguous().view(16, -1).view(torch.uint8).numpy() == expected).all()
            assert drawn[name].dtype == stored[name].dtype


def test_non_contiguous_minibatches_are_stored_in_order() -> None:
    schema = Schema(image=Field((2, 3, 4), "float32"))
    images = torch.arange(4 * 24).float().view(4, 2, 3, 4).to(memory_format=torch.channels_last)
    with RehearsalBuffer(schema, capacity=4, representatives=4, candidates=4) as buffer:
        buffer.offer({"image": images})
        drawn = buffer.take().tensors["image"]
        assert torch.equal(drawn[drawn[:, 0, 0, 0].argsort()], images)


def test_views_that_only_note_a_conjugation_or_a_sign_are_stored_with_their_values() -> None:
    schema = Schema(wave=Field((3,), "complex64"), part=Field((3,), "float32"))
    wave = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1).view(2, 3)
    part = wave.conj().imag
    assert wave.conj().is_conj()
    assert part.is_neg()
    with RehearsalBuffer(schema, capacity=2, representatives=2, candidates=2) as buffer:
        buffer.offer({"wave": wave.conj(), "part": part})
        drawn = buffer.take()
        order = drawn.tensors["wave"].real[:, 0].argsort()
        assert torch.equal(drawn.tensors["wave"][order], wave.conj().resolve_conj())
        assert torch.equal(drawn.tensors["part"][order], -wave.imag)
        negated = torch.zeros(2, 3, dtype=torch.complex64).conj() + 2j
        assert buffer.update_items(drawn.ids, wave=negated.conj()) == 2
        buffer.offer(None)
        assert torch.equal(buffer.take().tensors["wave"], torch.full((2, 3), -2j))


def test_a_schema_is_made_like_an_example() -> None:
    example = batch(0, 3) | {"path": torch.zeros(3, 7, dtype=torch.uint8)}
    assert Schema.like(example, exclude=("path",)) == SCHEMA
    extended = Schema(**Schema.like(batch(0, 2)), logits=Field((10,), "float16"))
    assert extended == Schema(**SCHEMA, logits=Field((10,), "float16"))
    with pytest.raises(ValueError, match=r"no \['pth'\] to exclude"):
        Schema.like(example, exclude=("pth",))
    with pytest.raises(ValueError, match="'loss' has no batch dimension"):
        Schema.like({"loss": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="1 to 63 fields, not 64"):
        Schema(**{f"f{number}": Field(()) for number in range(64)})


def test_representatives_are_indexed_by_field() -> None:
    with make() as buffer:
        buffer.offer(batch(0, 4))
        drawn = buffer.take()
        assert all(drawn[name] is drawn.tensors[name] for name in SCHEMA)


def test_classes_share_the_capacity() -> None:
    with make(capacity=10, representatives=10, classes=3) as buffer:
        for step in range(30):
            buffer.offer(batch(4 * step, 4), labels=torch.full((4,), min(step // 10, 2)))
        stats = buffer.stats()
        buffer.take()
        assert stats.capacity_per_class == (4, 3, 3)
        assert buffer.stats().size_per_class == {0: 4, 1: 3, 2: 3}


def test_classes_that_share_all_room_may_be_more_than_there_is_room_for() -> None:
    with make(capacity=6, classes=50, representatives=6, candidates=4, policy="balanced_reservoir") as buffer:
        for first in range(0, 40, 4):
            buffer.offer(batch(first, 4), labels=torch.arange(first, first + 4))
            drawn = buffer.take()
        assert len(drawn) == 6
        assert sorted(drawn.labels.tolist()) == sorted(set(drawn.labels.tolist())), "one of each class"
        again = buffer.state_dict()
    with make(capacity=6, classes=50, representatives=6, candidates=4, policy="balanced_reservoir") as restored:
        restored.load_shards([again])
        restored.offer(None)
        assert sorted(restored.take().ids.tolist()) == sorted(drawn.ids.tolist())


def test_byte_budget_bounds_the_store() -> None:
    budget = 100 * SCHEMA.nbytes
    with make(capacity=None, capacity_bytes=budget) as buffer:
        assert buffer.stats().capacity == 100 - 2 * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 3, "classes": 4, "representatives": 1}, "smaller than ranks x classes = 1 x 4"),
        ({"capacity": 0, "policy": "balanced_reservoir"}, "smaller than the number of ranks, 1"),
        ({"representatives": 41}, "representatives 41 is larger than capacity 40"),
        ({"candidates": 0}, "candidates is 0"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"policy": "lru"}, "Policy 'lru' is unknown"),
        ({"transport": "pigeon"}, "Transport 'pigeon' is unknown"),
        ({"capacity": None}, "either capacity"),
        ({"capacity": None, "capacity_bytes": 10}, "capacity_bytes 10 is too small"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(4, 1, 4, 5, dtype=torch.uint16)}, "Field 'image' has shape"),
        ({"image": torch.zeros(4, 1, 4, 4)}, "Field 'image' has dtype torch.float32"),
        ({"other": torch.zeros(4)}, r"unknown fields \['other'\]"),
        ({"target": torch.zeros(5)}, "differ in their number of items"),
    ],
)
def test_minibatches_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with make() as buffer:
        with pytest.raises(ValueError, match=message):
            buffer.offer(batch(0, 4) | change)
        buffer.offer(batch(0, 4))
        assert len(buffer.take()) == 4


def test_missing_fields_are_refused() -> None:
    with make() as buffer, pytest.raises(ValueError, match=r"missing fields \['image'\]"):
        buffer.offer({"target": torch.zeros(4)})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs labels"),
        (torch.tensor([0, 1, 2, 3]), "allowed are 0 to 2"),
        (torch.tensor([0, -1, 2, 1]), "labels span -1 to 2"),
        (torch.tensor([0, 1, 2]), "labels must be 4 integers"),
        (torch.zeros(4), "labels must be 4 integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor | None, message: str) -> None:
    with make(classes=3) as buffer, pytest.raises(ValueError, match=message):
        buffer.offer(batch(0, 4), labels=labels)


def test_updates_that_do_not_fit_are_refused() -> None:
    with make() as buffer:
        buffer.offer(batch(0, 4))
        ids = buffer.take().ids
        with pytest.raises(ValueError, match="at least one field"):
            buffer.update_items(ids)
        with pytest.raises(ValueError, match=r"unknown fields \['nothing'\]"):
            buffer.update_items(ids, nothing=torch.zeros(4))
        with pytest.raises(ValueError, match="ids must be 3"):
            buffer.update_items(ids, target=torch.zeros(3))


def test_calls_out_of_order_are_refused() -> None:
    buffer = make()
    buffer.take()
    with pytest.raises(RuntimeError, match="called twice"):
        buffer.take()
    buffer.close()
    buffer.close()
    for call in (buffer.take, lambda: buffer.offer(None), buffer.state_dict):
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_policy_that_fails_is_reported_and_nothing_hangs() -> None:
    class Broken(Policy):
        def place(self, candidate: object, index: object, rng: object) -> int:
            raise ZeroDivisionError("no way")

    buffer = make(policy=Broken())
    buffer.offer(batch(0, 4))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no way"):
        buffer.take()
    with pytest.raises(RuntimeError, match="has ended"):
        buffer.offer(batch(0, 4))
    buffer.close()


def test_statistics_count_what_happened() -> None:
    with make(policy="fifo") as buffer:
        for step in range(20):
            buffer.update(batch(4 * step, 4))
        buffer.take()
        stats = buffer.stats()
    assert (stats.offered, stats.offered_samples, stats.candidates, stats.accepted) == (20, 80, 80, 80)
    assert (stats.replaced, stats.size, stats.taken, stats.draws) == (40, 40, 20, 20)
    assert stats.drawn == 4 + 19 * 8
    assert stats.bytes_copied == stats.drawn * SCHEMA.nbytes
    assert stats.background_s > 0
    assert stats.waited_s >= stats.last_step.waited_s > 0
    assert stats.hidden_fraction == 1 - stats.waited_s / stats.background_s
