"""Strategies on two ranks with a shared buffer beside one process that has both ranks' samples."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks_in_processes import run_in_ranks
from strategy_steps import Samples, Step, Trainee, minibatch, train_plainly

from ptychoflow.buffer.names import TransportName
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints

CASES = [
    (StrategyName.ER, "tcp"),
    (StrategyName.DER, "tcp"),
    (StrategyName.DERPP, "tcp"),
    (StrategyName.XDER, "tcp"),
    (StrategyName.DERPP_TWO_DRAWS, "tcp"),
    (StrategyName.DERPP_TWO_DRAWS, "local"),
    (StrategyName.DER, "local"),
    (StrategyName.DERPP, "local"),
]
"""With the transport "local", ranks draw from their own stores, which fill at different rates here."""
SIZES = [(4, 0), (4, 4), (4, 4), (4, 0), (0, 4), (0, 0), (1, 4), (4, 4), (0, 0), (4, 4)]
"""Samples of the stream that rank 0 and rank 1 have in each step."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Step]]]:
    """The steps of two processes joined by gloo, by strategy and transport."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_ranks(in_group, 2, folder, timeout_s=120.0)
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    return [{name: [Step(**step) for step in steps] for name, steps in saved.items()} for saved in found]


def in_group(rank: int, folder: Path) -> None:
    torch.save(
        {name + transport: train_on_my_share(name, transport, rank) for name, transport in CASES},
        folder / f"rank{rank}.pt",
    )


def train_on_my_share(name: StrategyName, transport: TransportName, rank: int) -> list[dict[str, object]]:
    mine = [range(100 * rank + 10 * step, 100 * rank + 10 * step + size[rank]) for step, size in enumerate(SIZES)]
    trainee = Trainee(name, transport=transport)
    with trainee.buffer:
        steps = trainee.run([minibatch(index) if index else None for index in mine])
        dist.barrier()
    return [asdict(step) for step in steps]


def both(first: Samples, second: Samples) -> Samples:
    return {name: torch.cat([first[name], second[name]]) for name in first}


@pytest.mark.parametrize(("name", "transport"), CASES)
def test_two_ranks_equal_one_with_all_samples(
    ranks: list[dict[str, list[Step]]], name: StrategyName, transport: TransportName
) -> None:
    pairs = list(zip(ranks[0][name + transport], ranks[1][name + transport], strict=True))
    joined = [
        Step(
            both(a.new, b.new),
            both(a.old, b.old),
            a.loss + b.loss,
            a.weights,
            torch.cat([a.with_truth, b.with_truth]),
        )
        for a, b in pairs
    ]
    assert len(joined) == len(SIZES)
    for step, plain in zip(joined, train_plainly(name, joined), strict=True):
        assert step.loss == pytest.approx(plain.loss, rel=1e-5)
        for parameter, weights in plain.weights.items():
            # Adam makes of gradients near zero steps of any size below the rate, 1e-3, and rounding decides.
            torch.testing.assert_close(step.weights[parameter], weights, rtol=1e-4, atol=1e-4)
    for a, b in pairs:
        assert all(torch.equal(a.weights[parameter], b.weights[parameter]) for parameter in a.weights)


def test_ranks_with_different_numbers_of_representatives_are_among_the_cases(
    ranks: list[dict[str, list[Step]]],
) -> None:
    counts = [[len(step.old["diffraction"]) for step in found["derpplocal"][:4]] for found in ranks]
    assert counts == [[0, 3, 6, 6], [0, 0, 3, 6]]


def test_ranks_draw_what_the_other_one_stored(ranks: list[dict[str, list[Step]]]) -> None:
    for name in ("dertcp", "derpptcp"):
        own = {frame.numpy().tobytes() for step in ranks[0][name] for frame in step.new["diffraction"]}
        drawn = [frame.numpy().tobytes() for step in ranks[0][name] for frame in step.old["diffraction"]]
        assert any(frame in own for frame in drawn)
        assert any(frame not in own for frame in drawn)


def begin_alone(rank: int) -> list[int]:
    """Return how many representatives each step of a rank has that keeps to its own items."""
    trainee = Trainee(StrategyName.ER, begins_at_items=18, transport="local")
    first = 1000 * rank
    with trainee.buffer:
        gathered = [
            trainee.strategy.gather(minibatch(range(first + 10 * step, first + 10 * step + 4))) for step in range(6)
        ]
    return [len(batch.ids) for batch in gathered if batch is not None]


def test_ranks_that_keep_to_their_own_items_begin_to_rehearse_when_all_of_them_store_enough() -> None:
    """Each has room for twelve items of twenty-four, and stores three of each minibatch."""
    assert run_in_ranks(begin_alone, 2) == [[0, 0, 0, 6, 6, 6]] * 2


def draw_after_a_checkpoint(rank: int, folder: Path) -> int:
    """Return how many items the first draw has after both ranks have gone on from a checkpoint, rank 1 later."""
    checkpoints = SectionCheckpoints(folder, Rank(rank, 2, torch.device("cpu"), Precision.FLOAT32))
    before, after = (Trainee(StrategyName.ER, transport="tcp") for _ in range(2))
    with before.buffer:
        before.run([minibatch(range(1000 * rank, 1000 * rank + 4))])
        checkpoints.save(1, before.learner, before.strategy, common={}, own={})
    found, load = checkpoints.newest(), after.buffer.load_shards
    assert found is not None

    def load_late(shards: Any) -> None:
        time.sleep(0.5 * rank)
        load(shards)

    after.buffer.load_shards = load_late  # type: ignore[method-assign]
    with after.buffer as buffer:
        checkpoints.restore(found, after.learner, after.strategy)
        drawn = len(buffer.take())
        dist.barrier()
    return drawn


def test_the_first_draw_after_a_checkpoint_is_of_what_all_ranks_hold(tmp_path: Path) -> None:
    """Each holds three of the six items that a draw asks for."""
    assert run_in_ranks(draw_after_a_checkpoint, 2, tmp_path) == [6, 6]
