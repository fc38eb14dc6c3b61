"""Steps of a strategy on a real buffer, recorded, and the same steps in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from trainer_streams import FRAME, TARGET, samples

from ptychoflow.buffer.names import TransportName
from ptychoflow.buffer.outputs import Representatives
from ptychoflow.trainer.interface.agreement import Proposal, agree
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, Distance, DistillationSettings, StrategyName
from ptychoflow.trainer.strategies.derpp_two_draws import TwoDrawDarkExperienceReplayPlusPlus
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.schedule import ScanSchedule

CPU = torch.device("cpu")
RATE = 1e-3
PIPELINE = Ptychography(FRAME, TARGET)
Samples = dict[str, Tensor]


@dataclass
class Step:
    """What one rank trained on and found."""

    new: Samples
    """The minibatch; no rows where there was none."""
    old: Samples
    """The draw, copied."""
    loss: float
    """This rank's share."""
    weights: Samples
    with_truth: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    """Which rows of the draw had their ground truth, where there are two draws."""


@dataclass
class Trainee:
    """A small network that learns by a strategy, and what its training passes gave."""

    name: StrategyName
    beta: float = 1.0
    distance: Distance = Distance.SQUARED
    transport: TransportName = "local"
    begins_at_items: int = 0
    batch_norm: bool = False
    precision: Precision = Precision.FLOAT32
    network: FrameNetwork = field(init=False)
    draw: Samples = field(init=False)
    outputs: dict[bytes, Patches] = field(default_factory=dict)
    """Of every training pass, by the frame's counts."""

    def __post_init__(self) -> None:
        settings = TrainerSettings(
            strategy=self.name,
            buffer=BufferSettings(
                capacity=24,
                representatives=6,
                candidates=3,
                transport=self.transport,
                rehearse_from_items=self.begins_at_items,
            ),
            distillation=DistillationSettings(alpha=0.7, beta=self.beta, distance=self.distance),
            learning_rate=RATE,
            averaging=0.0,
        )
        self.network = network(batch_norm=self.batch_norm)
        self.network.register_forward_hook(self._note)
        schedule = ScanSchedule(settings.schedule, RATE)
        self.learner = Learner(
            self.network, PIPELINE, settings, schedule=schedule, device=CPU, precision=self.precision
        )
        self.strategy: Strategy = make_strategy(settings, PIPELINE, device=CPU, seed=3)
        assert self.strategy.buffer is not None
        self.buffer = self.strategy.buffer
        self._take, self.buffer.take = self.buffer.take, self._take_and_note  # type: ignore[method-assign]

    def run(self, stream: list[Minibatch | None]) -> list[Step]:
        """Train on every entry as the loop does; steps without any sample on any rank are left out."""
        steps = []
        for minibatch in stream:
            batch = self.strategy.gather(minibatch)
            agreed = agree(
                Proposal(
                    stream=batch.stream if batch else 0,
                    samples=len(batch) if batch else 0,
                    section_ended=False,
                    stream_ended=False,
                    stop=False,
                    publish=False,
                    finish=0.0,
                )
            )
            if agreed.samples > 0:
                share = self.learner.train(batch, self.strategy, agreed)
                assert share is not None
                weights = {name: value.detach().clone() for name, value in self.network.named_parameters()}
                step = Step(minibatch or none(), self.draw, share.sum().item(), weights)
                if isinstance(self.strategy, TwoDrawDarkExperienceReplayPlusPlus):
                    used = len(batch.ids) if batch else 0
                    step.old = {name: tensor[:used] for name, tensor in self.draw.items()}
                    step.with_truth = self.strategy.with_truth if batch else step.with_truth
                steps.append(step)
        return steps

    def _take_and_note(self) -> Representatives:
        drawn = self._take()
        self.draw = {name: tensor.clone() for name, tensor in drawn.tensors.items()}
        return drawn

    def _note(self, _module: nn.Module, inputs: tuple[Tensor], output: Patches) -> None:
        for row, frame in enumerate(inputs[0]):
            patches = Patches(output.amplitude[row].detach().clone(), output.phase[row].detach().clone())
            self.outputs.setdefault(frame.numpy().tobytes(), patches)


def network(*, batch_norm: bool = False) -> FrameNetwork:
    torch.manual_seed(1)
    model = ModelSettings(width=4, levels=2, batch_norm=batch_norm)
    made = FrameNetwork(NetworkConfig(model=model, frame_shape_px=FRAME, target_shape_px=TARGET))
    made.scale_input_to(50.0)
    return made


def minibatch(index: range) -> Minibatch:
    arrays = samples(index)
    return {name: torch.from_numpy(arrays[name]) for name in ("diffraction", "amplitude", "phase")}


def none() -> Samples:
    return {name: tensor[:0] for name, tensor in minibatch(range(1)).items()}


PLAIN_DISTANCES = {
    Distance.SQUARED: nn.functional.mse_loss,
    Distance.ABSOLUTE: nn.functional.l1_loss,
    Distance.HUBER: lambda output, stored: nn.functional.huber_loss(output, stored, delta=0.1),
}


def train_plainly(
    name: StrategyName,
    steps: list[Step],
    *,
    alpha: float = 0.7,
    beta: float = 1.0,
    distance: Distance = Distance.SQUARED,
) -> list[Step]:
    """Make the same steps in one process from the same weights: the strategies as their papers have them."""
    trained = network()
    optimizer = torch.optim.Adam(trained.parameters(), lr=RATE)
    made = []
    for step in steps:
        new, old = step.new, step.old
        b, r = len(new["diffraction"]), len(old["diffraction"])
        output = trained(torch.cat([new["diffraction"], old["diffraction"]]))
        loss = torch.zeros(())
        for head, image in output._asdict().items():
            if name is StrategyName.ER:
                loss = loss + (image - torch.cat([new[head], old[head]]).float()).abs().mean()
            if name is StrategyName.DER and b > 0:
                loss = loss + (image[:b] - new[head].float()).abs().mean()
            if name in {StrategyName.DERPP, StrategyName.XDER}:
                weight = torch.tensor([1.0] * b + [beta] * r)
                error = (image - torch.cat([new[head], old[head]]).float()).abs().mean(dim=(1, 2))
                loss = loss + (weight * error).sum() / weight.sum()
            if name is StrategyName.DERPP_TWO_DRAWS:
                drawn = [row for row in range(r) if step.with_truth[row]]
                error = (image[:b] - new[head].float()).abs().mean(dim=(1, 2)).sum()
                for row in drawn:
                    error = error + beta * (image[b + row] - old[head][row].float()).abs().mean()
                loss = loss + error / (b + beta * len(drawn))
                others = [row for row in range(r) if row not in drawn]
                assert len(others) == len(drawn)
                if others:
                    stored = torch.stack([old[f"activation_{head}"][row].float() for row in others])
                    loss = loss + alpha * PLAIN_DISTANCES[distance](image[b:][others], stored)
            elif name is not StrategyName.ER and r > 0:
                activation = old[f"activation_{head}"].float()
                loss = loss + alpha * PLAIN_DISTANCES[distance](image[b:], activation)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        weights = {key: value.detach().clone() for key, value in trained.named_parameters()}
        made.append(Step(new, old, loss.item(), weights))
    return made
