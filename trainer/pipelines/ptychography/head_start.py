"""Learning from frames and their probe alone, while their ground truth is still being computed."""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledPerspective, UnlabelledStore
from ptychoflow.trainer.pipelines.ptychography.overlap_loss import AXES, overlap_loss
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings

log = logging.getLogger(__name__)

GROUP = 12
"""Neighbouring frames that a step explains together."""
OUT_OF = 2
"""They are chosen of so many times as many."""
GAUGE_WEIGHT = 0.01
"""Of what the loss leaves open: the mean phase, which is brought to 0, and the brightness of the object, to 1."""
JUDGED_STEPS = 32
BETTER_THAN_NOTHING = 0.9
"""Weights are of use once they leave so much less unexplained than an empty object does."""
GIVEN_UP_AFTER_STEPS = 500
"""If they do not by then, the probe is not what lights the frames."""


class HeadStart:
    """Teaches a network what explains the frames so far, a group of neighbours a step.

    Args:
        network: learns; this object's own from now on.
        store: gets the frames.
        settings: rate, periods, limit.
        device: where it learns.
        precision: FLOAT32 or BFLOAT16.
        publish: takes copies of the network that are of use.
        seed: chooses the groups.
    """

    def __init__(
        self,
        network: FrameNetwork,
        store: UnlabelledStore,
        *,
        settings: TrainerSettings,
        device: torch.device,
        precision: Precision,
        publish: Callable[[FrameNetwork], None],
        seed: int,
    ) -> None:
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._store, self._device, self._precision = store, device, precision
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate)
        self._publish, self._settings = publish, settings
        self._random = np.random.default_rng(seed)
        self._frames: _Frames | None = None
        self._steps = 0
        self._unexplained: deque[float] = deque(maxlen=JUDGED_STEPS)
        self._by_nothing: deque[float] = deque(maxlen=JUDGED_STEPS)
        self._began_s = self._published_s = 0.0

    def go_on(self) -> bool:
        """Make a step, and publish if that is due; return False if there is nothing to learn from, or no more time."""
        perspective = self._store.newest()
        if perspective is None or sum(map(len, perspective.parts)) < GROUP:
            return False
        now_s = time.monotonic()
        if self._frames is None:
            self._began_s = self._published_s = now_s
            log.info("learning what explains the first frames, before there is ground truth")
        given_up = self._steps >= GIVEN_UP_AFTER_STEPS and not self.is_of_use
        if given_up or now_s >= self._began_s + self._settings.head_start_s:
            return False
        self._look_at(perspective)
        self._step()
        if self.is_of_use and time.monotonic() > self._published_s + self._settings.publish_every_s:
            self._publish(copy.deepcopy(self._network).eval())
            self._published_s = time.monotonic()
            log.info("weights after %d steps leave %s", self._steps, self._in_words())
        return True

    @property
    def is_of_use(self) -> bool:
        """Whether the network explains the frames better than an empty object would."""
        known = len(self._unexplained) == JUDGED_STEPS
        return known and fmean(self._unexplained) < BETTER_THAN_NOTHING * fmean(self._by_nothing)

    def end(self) -> FrameNetwork | None:
        """Let go of the frames; return the network if it is of use."""
        self._store.close()
        if self._steps:
            verdict = "training starts from there" if self.is_of_use else "of no use, training starts anew"
            log.info("head start of %d steps on frames alone: %s; %s", self._steps, self._in_words(), verdict)
        return self._network if self.is_of_use else None

    def _in_words(self) -> str:
        if not self._unexplained:
            return "nothing is known"
        here, nothing = fmean(self._unexplained), fmean(self._by_nothing)
        return f"{here:.3f} of the frames' energy unexplained, an empty object {nothing:.3f}"

    def _look_at(self, perspective: UnlabelledPerspective) -> None:
        if self._frames is not None and self._frames.is_of(perspective):
            return
        self._frames = _Frames(perspective, self._device)
        if self._steps == 0:
            self._network.scale_input_to(self._network.input_power(self._frames.counts))

    def _step(self) -> None:
        assert self._frames is not None  # noqa: S101  # looked at before
        chosen = self._frames.neighbours(self._random)
        counts, roots = self._frames.counts[chosen], self._frames.roots(chosen)
        with autocast(self._precision, self._device):
            output: Patches = self._network(counts)
        patches = Patches(*(channel.float() for channel in output))
        corners_px = self._frames.corners_px(chosen)
        loss = self._frames.loss(patches, corners_px, roots).mean()
        gauge = patches.phase.mean().square() + (patches.amplitude.mean() - 1.0).square()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss + GAUGE_WEIGHT * gauge)
        self._optimizer.step()
        with torch.no_grad():
            nothing = Patches(torch.ones_like(patches.phase), torch.zeros_like(patches.phase))
            self._by_nothing.append(self._frames.loss(nothing, corners_px, roots).mean().item())
        self._unexplained.append(loss.item())
        self._steps += 1


class _Frames:
    """The frames of a perspective so far, on the device."""

    def __init__(self, perspective: UnlabelledPerspective, device: torch.device) -> None:
        self._illumination, self._position_px = perspective.illumination, perspective.position_px
        counts = np.concatenate(perspective.parts).astype(np.float32)
        self.counts = torch.from_numpy(np.maximum(counts, 0.0)).to(device)
        """(n, y, x)"""
        self._probe = torch.fft.ifftshift(torch.from_numpy(self._illumination.probe.astype(np.complex64)), dim=AXES)
        self._probe = self._probe.to(device)
        mask = self._illumination.mask
        self._looked_at = None if mask is None else torch.fft.ifftshift(torch.from_numpy(~mask).to(device), dim=AXES)
        self._rounded_px: Tensor = torch.from_numpy(np.rint(self._position_px).astype(np.int64)).to(device)

    def is_of(self, perspective: UnlabelledPerspective) -> bool:
        """Whether these are all frames of a perspective."""
        return self._illumination is perspective.illumination and len(self._position_px) == len(perspective.position_px)

    def neighbours(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return some of the frames nearest to one of them, (n,)."""
        at_px = self._position_px[random.integers(len(self._position_px))]
        nearest = np.argsort(np.square(self._position_px - at_px).sum(axis=1), kind="stable")[: GROUP * OUT_OF]
        return random.choice(nearest, min(GROUP, len(nearest)), replace=False)

    def corners_px(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """Return where patches lie among each other, (n, 2) as (y, x)."""
        rounded_px = self._rounded_px[chosen]
        return rounded_px - rounded_px.amin(dim=0)

    def roots(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """Return the square roots of counts (n, y, x), zero frequency at pixel (0, 0)."""
        roots: Tensor = torch.fft.ifftshift(self.counts[chosen].sqrt(), dim=AXES)
        return roots

    def loss(self, patches: Patches, corners_px: Tensor, roots: Tensor) -> Tensor:
        """Return what is left unexplained, (n,)."""
        return overlap_loss(patches, corners_px, roots, self._probe, self._looked_at)
