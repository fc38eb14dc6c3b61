from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moved_tensors import Moved
from ranks_in_processes import run_in_ranks
from torch import Tensor, nn
from trainer_streams import FRAME, TARGET, samples

from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.interface.agreement import Agreed, Proposal, agree
from ptychoflow.trainer.interface.batch import Batch, join
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_settings import (
    ClassifierConfig,
    ClassifierSettings,
    ModelFamily,
    ViewSettings,
)
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import OptimizerKind, OptimizerSettings
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.trainer.training.averaging import WARM_UP_STEPS, AveragedNetwork
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.schedule import ScanSchedule
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints

CPU = torch.device("cpu")
PIPELINE = Ptychography(FRAME, TARGET)
ACCUMULATING = OptimizerSettings(kind=OptimizerKind.SGD, momentum=0.5, weight_decay=0.1, accumulate=2)
SHARES = [(4, 1), (0, 3), (5, 0), (2, 2)]
"""Samples that rank 0 and rank 1 have in each step."""
ALONE = 5
"""Steps for which rank 0 alone has samples."""


def minibatch(index: range) -> Minibatch | None:
    arrays = samples(index) if len(index) else {}
    return {name: torch.from_numpy(arrays[name]) for name in ("diffraction", "amplitude", "phase")} if arrays else None


def batch(index: range) -> Batch | None:
    found = minibatch(index)
    return join(found, None, pipeline=PIPELINE, device=CPU) if found else None


def test_samples_that_come_to_the_cpu_are_waited_for() -> None:
    """DALI's lie on a GPU, and a copy that is not waited for may be read before it has arrived."""
    found = {name: tensor.as_subclass(Moved) for name, tensor in (minibatch(range(2)) or {}).items()}
    Moved.moves.clear()
    join(found, None, pipeline=PIPELINE, device=CPU)
    assert Moved.moves == [(CPU, False)] * 3


def learner(*, batch_norm: bool, seed: int = 0, optimizer: OptimizerSettings | None = None) -> Learner[FrameNetwork]:
    config = NetworkConfig(
        model=ModelSettings(width=4, levels=2, batch_norm=batch_norm), frame_shape_px=FRAME, target_shape_px=TARGET
    )
    torch.manual_seed(seed)
    network = FrameNetwork(config)
    network.scale_input_to(50.0)
    settings = TrainerSettings(averaging=0.5, learning_rate=1e-3, optimizer=optimizer or OptimizerSettings())
    schedule = ScanSchedule(settings.schedule, settings.learning_rate)
    return Learner(network, PIPELINE, settings, schedule=schedule, device=CPU, precision=Precision.FLOAT32)


def propose(samples: int, **changes: float) -> Proposal:
    fields = {"stream": samples, "samples": samples, "section_ended": False, "stream_ended": False}
    return Proposal(**(fields | {"stop": False, "publish": False, "finish": 0.0} | changes))  # type: ignore[arg-type]


def train_steps(trained: Learner[FrameNetwork], rank: int) -> list[float]:
    """Train on this rank's share of each step; with rank -1 on all of it."""
    losses, first, strategy = [], 0, Incremental(PIPELINE, device=CPU)
    for shares in SHARES:
        starts = [first, first + shares[0]]
        mine = range(first, first + sum(shares)) if rank < 0 else range(starts[rank], starts[rank] + shares[rank])
        first += sum(shares)
        agreed = agree(propose(len(mine)))
        assert agreed.samples == sum(shares)
        loss = trained.train(batch(mine), strategy, agreed)
        assert loss is not None
        losses.append(loss.sum().item())
    return losses


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes joined by gloo found, and one that went on alone from where they stood."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_ranks(in_group, 2, folder, timeout_s=120.0)
    found = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    alone = learner(batch_norm=True)
    checkpoints = SectionCheckpoints(folder, Rank(0, 1, CPU, Precision.FLOAT32))
    checkpoint = checkpoints.newest()
    assert checkpoint is not None
    checkpoints.restore(checkpoint, alone, Incremental(PIPELINE, device=CPU))
    for one in found:
        one["gone_on_alone"] = statistics(alone)
    return found


def in_group(rank: int, folder: Path) -> None:
    found = train_one_rank(rank) | share_one_rank(rank) | share_both_ranks(rank, folder) | agree_on_everything(rank)
    torch.save(found, folder / f"rank{rank}.pt")


def train_one_rank(rank: int) -> dict[str, Any]:
    trained = learner(batch_norm=False, seed=rank)
    losses = train_steps(trained, rank)
    accumulated = learner(batch_norm=False, optimizer=ACCUMULATING)
    train_steps(accumulated, rank)
    return {
        "losses": losses,
        "state": trained.averaged.network.state_dict(),
        "accumulated": accumulated.averaged.network.state_dict(),
    }


def test_one_sample_is_learnt_from_where_the_code_is_a_single_pixel() -> None:
    """What is left of a perspective after full minibatches may be one sample, and batch norm refuses one value."""
    config = NetworkConfig(model=ModelSettings(width=4, levels=3), frame_shape_px=FRAME, target_shape_px=TARGET)
    settings = TrainerSettings()
    schedule = ScanSchedule(settings.schedule, settings.learning_rate)
    made = Learner(FrameNetwork(config), PIPELINE, settings, schedule=schedule, device=CPU, precision=Precision.FLOAT32)
    share = made.train(batch(range(1)), Incremental(PIPELINE, device=CPU), agree(propose(1)))
    assert share is not None
    assert share.isfinite().all()
    assert made.steps == 1


def test_one_sample_gives_the_gradient_that_it_gives_by_itself() -> None:
    alone, made = learner(batch_norm=True), learner(batch_norm=True)
    one = batch(range(1))
    assert one is not None
    with alone.resting() as network:
        network.train()
        network.zero_grad()
        strategy = Incremental(PIPELINE, device=CPU)
        strategy.loss(one, network(one.inputs), agree(propose(1))).sum().backward()
        expected = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    made.train(one, strategy, agree(propose(1)))
    with made.resting() as network:
        found = [parameter.grad for parameter in network.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def share_one_rank(rank: int) -> dict[str, Any]:
    trained = learner(batch_norm=True)
    before = statistics(trained)
    mine = batch(range(3)) if rank == 0 else None
    assert trained.train(mine, Incremental(PIPELINE, device=CPU), agree(propose(3 if rank == 0 else 0))) is not None
    local = statistics(trained)
    trained.averaged.share_statistics()
    return {"before": before, "local": local, "shared": statistics(trained)}


def share_both_ranks(rank: int, folder: Path) -> dict[str, Any]:
    """One step of both ranks, then some of rank 0 alone, and a checkpoint."""
    trained, strategy = learner(batch_norm=True), Incremental(PIPELINE, device=CPU)
    trained.train(batch(range(3 * rank, 3 * rank + 3)), strategy, agree(propose(3)))
    found = {"own": statistics(trained)}
    trained.averaged.share_statistics()
    found["of_both"] = statistics(trained)
    for _ in range(ALONE):
        trained.train(batch(range(3)) if rank == 0 else None, strategy, agree(propose(0 if rank else 3)))
    found["later"] = statistics(trained)
    restored = learner(batch_norm=True)
    restored.restore(trained.state())
    restored.restore_rank(trained.rank_state())
    checkpoints = SectionCheckpoints(folder, Rank(rank, 2, CPU, Precision.FLOAT32))
    checkpoints.save(trained.steps, trained, strategy, common={}, own={})
    for one, name in ((trained, "of_both_later"), (restored, "restored")):
        one.averaged.share_statistics()
        found[name] = statistics(one)
    return found


def statistics(trained: Learner[FrameNetwork]) -> list[Tensor]:
    return [buffer.clone() for name, buffer in trained.averaged.network.named_buffers() if "running" in name]


def agree_on_everything(rank: int) -> dict[str, Any]:
    ended = {"section_ended": True, "stream_ended": rank == 0}
    agreed = agree(propose(3 + rank, **ended, stop=rank == 1, publish=rank == 0, finish=0.25 if rank == 0 else 0.0))
    mean_patch = MeanPatch((8, 8), device=CPU)
    own = batch(range(3) if rank == 0 else range(3, 4))
    assert own is not None
    mean_patch.accumulate(Patches(*own.target), first=len(own))
    return {"agreed": asdict(agreed), "mean_phase": mean_patch.over_all_ranks().phase}


def test_two_ranks_with_unequal_shares_equal_one_with_all_samples(ranks: list[dict[str, Any]]) -> None:
    alone = learner(batch_norm=False)
    losses = train_steps(alone, -1)
    together = [first + second for first, second in zip(ranks[0]["losses"], ranks[1]["losses"], strict=True)]
    assert together == pytest.approx(losses, rel=1e-4)
    for name, tensor in alone.averaged.network.state_dict().items():
        torch.testing.assert_close(ranks[0]["state"][name], tensor, rtol=1e-4, atol=1e-6)
        assert torch.equal(ranks[0]["state"][name], ranks[1]["state"][name]), name


def test_gradients_are_averaged_over_minibatches_and_ranks_before_a_step(ranks: list[dict[str, Any]]) -> None:
    alone = learner(batch_norm=False, optimizer=ACCUMULATING)
    start = alone.averaged.snapshot()
    train_steps(alone, -1)
    assert alone.steps == len(SHARES) // 2
    for name, tensor in alone.averaged.network.state_dict().items():
        torch.testing.assert_close(ranks[0]["accumulated"][name], tensor, rtol=1e-4, atol=1e-6)
    assert not torch.equal(next(start.parameters()), next(alone.averaged.network.parameters()))


def test_an_accumulated_step_is_one_of_plain_sgd_down_the_mean_of_the_losses() -> None:
    trained = learner(batch_norm=False, optimizer=ACCUMULATING)
    plain = trained.averaged.snapshot().requires_grad_(True)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.5, weight_decay=0.1)
    both = [batch(range(4)), batch(range(4, 6))]
    for one in both:
        assert one is not None
        trained.train(one, Incremental(PIPELINE, device=CPU), agree(propose(len(one))))
        (PIPELINE.error(plain(one.inputs), one.target).sum() / len(one) / 2).backward()
    optimizer.step()
    assert trained.steps == 1
    # the first step of the average keeps 1/11 of the start
    for averaged, start, stepped in zip(
        trained.averaged.network.parameters(),
        learner(batch_norm=False).averaged.network.parameters(),
        plain.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(averaged, start / 11 + stepped * 10 / 11, rtol=1e-4, atol=1e-6)


def test_a_rank_without_samples_leaves_its_batch_norm_statistics_alone(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        moved = [not torch.equal(old, new) for old, new in zip(found["before"], found["local"], strict=True)]
        assert any(moved) == (rank == 0)


def test_batch_norm_statistics_are_averaged_over_ranks(ranks: list[dict[str, Any]]) -> None:
    for position, shared in enumerate(ranks[0]["of_both"]):
        assert torch.equal(shared, ranks[1]["of_both"][position])
        torch.testing.assert_close(shared, (ranks[0]["own"][position] + ranks[1]["own"][position]) / 2)


def test_batch_norm_statistics_of_a_rank_without_samples_do_not_count(ranks: list[dict[str, Any]]) -> None:
    """They would be those of the network as it began."""
    for found in ranks:
        torch.testing.assert_close(found["shared"], ranks[0]["local"])


def test_batch_norm_statistics_weigh_less_the_longer_a_rank_has_had_no_samples(ranks: list[dict[str, Any]]) -> None:
    """They are those of the network as it was then."""
    weights = (1.0 - 0.9 ** (ALONE + 1), 0.1 * 0.9**ALONE)
    for position, (first, second) in enumerate(zip(ranks[0]["later"], ranks[1]["later"], strict=True)):
        expected = (weights[0] * first + weights[1] * second) / sum(weights)
        for found in ranks:
            torch.testing.assert_close(found["of_both_later"][position], expected)
            assert torch.equal(found["restored"][position], found["of_both_later"][position])


def test_one_rank_goes_on_with_the_batch_norm_statistics_that_two_ranks_would_have_shared(
    ranks: list[dict[str, Any]],
) -> None:
    for position, found in enumerate(ranks[0]["gone_on_alone"]):
        torch.testing.assert_close(found, ranks[0]["of_both_later"][position])


def test_ranks_agree_on_the_kind_of_step(ranks: list[dict[str, Any]]) -> None:
    expected = Agreed(stream=7, samples=7, section_ended=True, stream_ended=False, stop=True, publish=True, finish=0.25)
    assert [found["agreed"] for found in ranks] == [asdict(expected)] * 2


def test_the_mean_patch_is_that_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    expected = samples(range(4))["phase"].astype(np.float32).mean(axis=0)
    for found in ranks:
        np.testing.assert_allclose(found["mean_phase"].numpy(), expected, atol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    trained = learner(batch_norm=True)
    strategy = Incremental(PIPELINE, device=CPU)
    good = batch(range(4))
    assert good is not None
    assert trained.train(good, strategy, agree(propose(4))) is not None
    before = {name: tensor.clone() for name, tensor in trained.averaged.network.state_dict().items()}
    for bad in (good.inputs.float() * float("inf"), good.inputs.float() * float("nan")):
        assert trained.train(replace(good, inputs=bad), strategy, agree(propose(4))) is None
    target = (good.target[0], good.target[1] * float("nan"))
    assert trained.train(replace(good, target=target), strategy, agree(propose(4))) is None
    assert trained.steps == 1
    after = trained.averaged.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    loss = trained.train(good, strategy, agree(propose(4)))
    assert loss is not None
    assert loss.sum().isfinite()
    assert all(tensor.isfinite().all() for tensor in trained.averaged.network.state_dict().values())


def test_a_step_is_that_of_plain_code_also_after_one_that_is_not_finite() -> None:
    trained, strategy = learner(batch_norm=True), Incremental(PIPELINE, device=CPU)
    plain = trained.averaged.snapshot().train().requires_grad_(True)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    average = trained.averaged.snapshot()
    good = [batch(range(4 * number, 4 * number + 4)) for number in range(4)]
    assert good[0] is not None
    bad = replace(good[0], inputs=good[0].inputs.float() * float("nan"))
    for one in (bad, good[0], good[1], bad, bad, good[2], good[3]):
        assert one is not None
        step = trained.begin(one, strategy, agree(propose(4)))
        if one is bad:
            trained.settle()
            assert not step.made
            averaged = average.state_dict()
            running = {name: value for name, value in averaged.items() if "running" in name}
            plain.load_state_dict(running, strict=False)
            continue
        error = PIPELINE.error(plain(one.inputs), one.target).sum(dim=0) / 4
        torch.testing.assert_close(step.share, error.detach(), rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        error.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        made = optimizer.state[next(plain.parameters())]["step"].item()
        decay = min(0.5, made / (made + WARM_UP_STEPS))
        states = average.state_dict(), plain.state_dict()
        for mine, now in zip(*(state.values() for state in states), strict=True):
            if mine.is_floating_point():
                mine.lerp_(now, 1 - decay)
        assert made == trained.steps
    trained.settle()
    assert trained.steps == 4
    for (name, expected), found in zip(
        average.state_dict().items(), trained.averaged.network.state_dict().values(), strict=True
    ):
        if expected.is_floating_point():
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", [OptimizerKind.ADAM, OptimizerKind.SGD])
def test_a_first_step_that_is_not_finite_leaves_nothing_behind(kind: OptimizerKind) -> None:
    optimizer = OptimizerSettings(kind=kind, momentum=0.9)
    one, other = (learner(batch_norm=False, optimizer=optimizer) for _ in range(2))
    good = batch(range(4))
    assert good is not None
    bad = replace(good, inputs=good.inputs.float() * float("nan"))
    strategy = Incremental(PIPELINE, device=CPU)
    assert one.train(bad, strategy, agree(propose(4))) is None
    for trained in (one, other):
        for _ in range(3):
            trained.train(good, strategy, agree(propose(4)))
    mine, its = (trained.state() for trained in (one, other))
    for name in ("network", "averaged"):
        theirs = its[name] if name == "network" else its[name]["network"]
        for key, tensor in (mine[name] if name == "network" else mine[name]["network"]).items():
            assert torch.equal(tensor, theirs[key]), key
    assert mine["steps"] == its["steps"] == 3


@pytest.mark.parametrize("kind", ["no batch norm", "batch norm", "classifier"])
def test_all_of_an_average_is_on_the_network_s_device(kind: str) -> None:
    classifier = ClassifierConfig(
        model=ClassifierSettings(family=ModelFamily.SMALL),
        view=ViewSettings(image_px=28),
        channels=1,
        stored_px=28,
        classes=2,
    )
    network = (
        ImageClassifier(classifier)
        if kind == "classifier"
        else FrameNetwork(
            NetworkConfig(
                model=ModelSettings(width=2, batch_norm=kind == "batch norm"),
                frame_shape_px=FRAME,
                target_shape_px=TARGET,
            )
        )
    )
    # stands for a GPU, where operations refuse tensors of other devices, empty ones too
    elsewhere = torch.device("meta")
    average = AveragedNetwork(network.to(elsewhere), decay=0.5)
    average.update(torch.ones((), dtype=torch.bool, device=elsewhere))
    parts = [*average._average, *average._source]
    assert {part.device for part in parts} == {elsewhere}


def test_the_average_follows_the_network() -> None:
    torch.manual_seed(0)
    network = FrameNetwork(NetworkConfig(model=ModelSettings(width=1), frame_shape_px=FRAME, target_shape_px=TARGET))
    averaged = AveragedNetwork(network, decay=0.9)
    parameter = next(network.parameters())
    expected = parameter.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            parameter.add_(1.0)
        averaged.update()
        decay = min(0.9, step / (step + WARM_UP_STEPS))
        expected = decay * expected + (1 - decay) * parameter.detach()
    torch.testing.assert_close(next(averaged.network.parameters()), expected)


def test_a_few_samples_can_be_learnt_far_below_the_constant_prediction() -> None:
    trained, strategy, few = learner(batch_norm=True), Incremental(PIPELINE, device=CPU), batch(range(8))
    assert few is not None
    mean = [channel.mean(dim=0) for channel in few.target]
    constant = sum((channel - m).abs().mean().item() for channel, m in zip(few.target, mean, strict=True))
    for _ in range(250):
        loss = trained.train(few, strategy, agree(propose(8)))
    assert loss is not None
    assert loss.sum().item() < 0.4 * constant


def test_restored_moments_lie_in_memory_as_their_parameters_do() -> None:
    trained = learner(batch_norm=False)
    train_steps(trained, rank=-1)
    restored = learner(batch_norm=False)
    restored.restore(trained.state())
    (mine,), (its,) = (one._optimizer._optimizer.state.values() for one in (trained, restored))
    assert mine["exp_avg"].abs().sum() > 0
    for name in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(its[name], mine[name]), "element by element, in the order of the weights in memory"


def test_the_optimiser_s_state_is_told_by_parameter() -> None:
    trained = learner(batch_norm=False)
    trained.train(batch(range(4)), Incremental(PIPELINE, device=CPU), agree(propose(4)))
    moments, parameters = trained.state()["optimizer"]["moments"], list(trained._network.parameters())
    assert moments.keys() == {str(number) for number in range(len(parameters))}
    for number, parameter in enumerate(parameters):
        assert parameter.grad is not None
        torch.testing.assert_close(moments[str(number)]["exp_avg"], 0.1 * parameter.grad)
        assert moments[str(number)]["step"] == 1


def test_a_state_of_one_optimiser_for_each_parameter_is_gone_on_from() -> None:
    earlier, later = learner(batch_norm=False), learner(batch_norm=False)
    later.restore(earlier.state())
    parameters = [nn.Parameter(one.detach().clone()) for one in earlier._network.parameters()]
    each = torch.optim.Adam(parameters, lr=1e-3)
    strategy = Incremental(PIPELINE, device=CPU)
    for number in range(2):
        earlier.train(batch(range(4 * number, 4 * number + 4)), strategy, agree(propose(4)))
        for mine, its in zip(parameters, earlier._network.parameters(), strict=True):
            mine.grad = its.grad.clone() if its.grad is not None else None
        each.step()
    state = each.state_dict()
    moments = {str(number): values for number, values in state["state"].items()}
    later.restore(earlier.state() | {"optimizer": {"moments": moments, "groups": state["param_groups"]}})
    for one in (earlier, later):
        one.train(batch(range(8, 12)), strategy, agree(propose(4)))
    for mine, its in zip(earlier._network.parameters(), later._network.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


SGD, ADAM = OptimizerKind.SGD, OptimizerKind.ADAM


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (OptimizerSettings(kind=ADAM), OptimizerSettings(kind=SGD)),
        (OptimizerSettings(kind=SGD), OptimizerSettings(kind=ADAM)),
        (OptimizerSettings(kind=SGD, momentum=0.0), OptimizerSettings(kind=SGD)),
        (OptimizerSettings(kind=SGD), OptimizerSettings(kind=SGD, momentum=0.0)),
        (OptimizerSettings(kind=SGD), OptimizerSettings(kind=SGD, momentum=0.5, weight_decay=0.2)),
        (OptimizerSettings(kind=ADAM), OptimizerSettings(kind=ADAM, weight_decay=0.2)),
    ],
)
def test_training_goes_on_with_the_optimiser_of_the_settings(then: OptimizerSettings, now: OptimizerSettings) -> None:
    """`resume --set trainer.optimizer.…`: moments are taken over where there are such, figures never."""
    earlier, later = (learner(batch_norm=False, optimizer=one) for one in (then, now))
    strategy = Incremental(PIPELINE, device=CPU)
    for number in range(2):
        earlier.train(batch(range(4 * number, 4 * number + 4)), strategy, agree(propose(4)))
    later.restore(earlier.state())
    weights = [nn.Parameter(one.detach().clone()) for one in later._network.parameters()]
    if now.kind is ADAM:
        plain: torch.optim.Optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=now.weight_decay)
    else:
        plain = torch.optim.SGD(weights, lr=1e-3, momentum=now.momentum, weight_decay=now.weight_decay)
    kept = then.kind is now.kind and (then.kind is ADAM or then.momentum * now.momentum > 0.0)
    for weight, moments in zip(weights, earlier.state()["optimizer"]["moments"].values(), strict=False):
        plain.state[weight].update({name: value.clone() for name, value in moments.items()} if kept else {})
    for number in range(2, 4):
        later.train(batch(range(4 * number, 4 * number + 4)), strategy, agree(propose(4)))
        for weight, its in zip(weights, later._network.parameters(), strict=True):
            weight.grad = None if its.grad is None else its.grad.clone()
        plain.step()
    for weight, its in zip(weights, later._network.parameters(), strict=True):
        torch.testing.assert_close(its, weight)
