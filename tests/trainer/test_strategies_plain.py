"""Strategies on one rank beside the same in plain PyTorch, on the draws that the buffer gave."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from strategy_steps import PIPELINE, Step, Trainee, minibatch, train_plainly

from ptychoflow.buffer.names import PolicyName
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.interface.loss import DISTANCES
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.pipelines.ptychography.pipeline import ACTIVATIONS, FIELDS
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import Distance, DistillationSettings, StrategyName
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.strategies.strategy import Strategy

STREAM = [None, *(minibatch(range(first, first + size)) for first, size in [(0, 4), (10, 5), (20, 1)]), None, None]
STREAM += [minibatch(range(first, first + 4)) for first in range(30, 70, 10)] + [None]
"""Minibatches of several sizes, and steps without one, the first of them before anything is stored."""

CASES = [
    (StrategyName.ER, 1.0),
    (StrategyName.DER, 1.0),
    (StrategyName.DERPP, 1.0),
    (StrategyName.DERPP, 0.25),
    (StrategyName.XDER, 1.0),
    (StrategyName.DERPP_TWO_DRAWS, 1.0),
    (StrategyName.DERPP_TWO_DRAWS, 0.5),
]


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_every_policy_that_may_be_chosen_is_one_that_strategies_can_serve(policy: PolicyName) -> None:
    try:
        settings = TrainerSettings.model_validate({"buffer": {"policy": policy, "candidates": 2}})
    except ValidationError as error:
        assert policy in {"loss_aware", "herding"}
        assert "buffer.policy" in str(error)
        return
    with make_strategy(settings, PIPELINE, device=torch.device("cpu"), seed=0).buffer as buffer:
        assert not buffer.needs_scores
        assert not buffer.needs_features


def train(trainee: Trainee) -> list[Step]:
    with trainee.buffer:
        return trainee.run(STREAM)


def assert_same(steps: list[Step], expected: list[Step]) -> None:
    for step, plain in zip(steps, expected, strict=True):
        assert step.loss == pytest.approx(plain.loss, rel=1e-5)
        for name, weights in plain.weights.items():
            torch.testing.assert_close(step.weights[name], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "beta"), CASES)
def test_every_step_equals_that_of_a_plain_implementation(name: StrategyName, beta: float) -> None:
    steps = train(Trainee(name, beta=beta))
    drawn = [0, 2, 6, 6] if name is StrategyName.DERPP_TWO_DRAWS else [0, 3, 6, 6]
    assert [len(step.old["diffraction"]) for step in steps[:4]] == drawn
    assert len(steps) == len(STREAM) - 1, "all but the step before anything was stored"
    assert_same(steps, train_plainly(name, steps, beta=beta))


@pytest.mark.parametrize("distance", [Distance.ABSOLUTE, Distance.HUBER])
@pytest.mark.parametrize("name", [StrategyName.DER, StrategyName.DERPP_TWO_DRAWS])
def test_other_distances_than_squares(name: StrategyName, distance: Distance) -> None:
    steps = train(Trainee(name, distance=distance))
    assert_same(steps, train_plainly(name, steps, distance=distance))


def test_chance_decides_which_of_two_draws_a_representative_is_in() -> None:
    steps = train(Trainee(StrategyName.DERPP_TWO_DRAWS))
    masks = [tuple(step.with_truth.tolist()) for step in steps if len(step.with_truth) == 12]
    assert len(set(masks)) > 1
    assert all(sum(mask) == 6 for mask in masks)


def test_derpp_without_its_ground_truth_term_is_der() -> None:
    steps = train(Trainee(StrategyName.DERPP, beta=0.0))
    assert_same(steps, train_plainly(StrategyName.DER, steps))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (StrategyName.ER, FIELDS),
        (StrategyName.DER, ("diffraction", *ACTIVATIONS)),
        (StrategyName.DERPP, (*FIELDS, *ACTIVATIONS)),
    ],
)
def test_the_buffer_stores_what_the_strategy_needs_and_no_more(name: StrategyName, fields: tuple[str, ...]) -> None:
    assert sorted(train(Trainee(name))[-1].old) == sorted(fields)


@pytest.mark.parametrize("name", [StrategyName.DER, StrategyName.DERPP])
@pytest.mark.parametrize(
    ("precision", "batch_norm"),
    [(Precision.FLOAT32, False), (Precision.FLOAT32, True), (Precision.BFLOAT16, True)],
)
def test_stored_activations_are_the_outputs_of_the_training_pass(
    name: StrategyName, precision: Precision, batch_norm: bool
) -> None:
    trainee = Trainee(name, precision=precision, batch_norm=batch_norm)
    steps = train(trainee)
    drawn = 0
    for step in steps:
        for row, frame in enumerate(step.old["diffraction"]):
            learnt = trainee.outputs[frame.numpy().tobytes()]
            for field, channel in zip(ACTIVATIONS, learnt, strict=True):
                assert torch.equal(step.old[field][row], channel.half())
            drawn += 1
    assert drawn > 40
    assert all(torch.isfinite(torch.tensor(step.loss)) for step in steps)


def test_activations_that_are_not_finite_ask_for_nothing() -> None:
    output = torch.ones(2, 4, 4, requires_grad=True)
    activation = torch.zeros(2, 4, 4)
    activation[0] = float("nan")
    loss = PIPELINE.distance((output, output), (activation, activation), DISTANCES[Distance.SQUARED])[:, 0].sum()
    (gradient,) = torch.autograd.grad(loss, output)
    assert loss.item() == 1.0
    assert torch.equal(gradient, torch.stack([torch.zeros(4, 4), torch.full((4, 4), 2.0 / 16)]))


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": float("inf")}, {"beta": -0.1}, {"gamma": 1.0}])
def test_weights_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DistillationSettings(**wrong)


def test_rehearsal_begins_when_enough_is_stored() -> None:
    """Three candidates of each minibatch are stored, so twelve items are there when the fifth one comes."""
    trainee = Trainee(StrategyName.ER, begins_at_items=12)
    with trainee.buffer:
        gathered = [trainee.strategy.gather(minibatch(range(first, first + 4))) for first in range(0, 60, 10)]
    assert [len(batch.ids) for batch in gathered if batch is not None] == [0, 0, 0, 0, 6, 6]


@pytest.mark.parametrize("room", [{"capacity": 24}, {"capacity_bytes": 40_000}])
def test_rehearsal_that_would_never_begin_is_refused(room: dict[str, int]) -> None:
    size = {"candidates": 2, "representatives": 2, "transport": "local"}

    def made(begins_at_items: int) -> Strategy:
        buffer = {**room, **size, "rehearse_from_items": begins_at_items}
        settings = TrainerSettings.model_validate({"buffer": buffer})
        return make_strategy(settings, PIPELINE, device=torch.device("cpu"), seed=0)

    strategy = made(0)
    assert strategy.buffer is not None
    with strategy.buffer as buffer:
        capacity = buffer.stats().capacity
    made(capacity).close()
    with pytest.raises(UserError, match=rf"rehearse_from_items {capacity + 1} is larger than .* {capacity} items"):
        made(capacity + 1)


def test_revision_keeps_the_better_of_two_activations() -> None:
    """Every stored activation is one that the network has made of that frame, and none is farther from the truth."""
    trainee, seen = Trainee(StrategyName.XDER), {}
    rewritten = 0
    with trainee.buffer:
        for first in [*range(0, 120, 10)]:
            for step in trainee.run([minibatch(range(first, first + 4))]):
                rows = zip(
                    step.old["diffraction"], *(step.old[name] for name in (*FIELDS[1:], *ACTIVATIONS)), strict=True
                )
                for frame, amplitude, phase, kept_amplitude, kept_phase in rows:
                    error = (kept_amplitude - amplitude).abs().mean() + (kept_phase - phase).abs().mean()
                    before = seen.get(frame.numpy().tobytes(), error)
                    assert error <= before + 1e-2
                    rewritten += bool(error < before)
                    seen[frame.numpy().tobytes()] = error
    assert rewritten > 5


def test_revision_replaces_activations_that_are_not_finite() -> None:
    """As a step leaves them that is skipped; without, they would ask for nothing for as long as they are stored."""
    trainee = Trainee(StrategyName.XDER)
    with trainee.buffer as buffer:
        trainee.run([minibatch(range(4))])
        stored = buffer.take()
        assert len(stored) == 3
        broken = torch.full_like(stored["activation_phase"], float("nan"))
        assert buffer.update_items(stored.ids.clone(), activation_phase=broken) == 3
        buffer.offer(None)
        (step,) = trainee.run([None])
        assert step.old["activation_phase"].isnan().all()
        assert buffer.take()["activation_phase"].isfinite().all()
