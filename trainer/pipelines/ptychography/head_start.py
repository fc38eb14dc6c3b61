"""Learning from frames and their probe alone, while their ground truth is still being computed."""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
FEWEST = 4
"""Fewer do not hold each other."""
STEP_BYTES = 1 << 30
"""Of the waves of a group with all their modes, about: it is smaller where frames are large."""
WAVES = 6
"""Arrays as large as the exit waves that a step needs at once, about."""
OUT_OF = 2
"""A group is chosen of so many times as many."""
GAUGE_WEIGHT = 0.01
"""Of what the loss leaves open: the mean phase, which is brought to 0, and the brightness of the object, to 1."""
JUDGED_STEPS = 32
BETTER_THAN_NOTHING = 0.9
"""Weights are of use once they leave so much less unexplained than an empty object does."""
GIVEN_UP_AFTER_STEPS = 500
"""If they never were by then, the probe is not what lights the frames."""
PUBLISH_EVERY_S = 5.0
"""Where the settings have weights published at the ends of perspectives only."""


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
        self._published: FrameNetwork | None = None
        """The last one that was of use."""
        self._over = False

    def go_on(self) -> bool:
        """Make a step, and publish if that is due; return False if there is nothing to learn from or no more time."""
        perspective = None if self._over else self._store.fullest()
        if perspective is None or len(perspective.position_px) < GROUP or not self._look_at(perspective):
            return False
        never_of_use = self._steps >= GIVEN_UP_AFTER_STEPS and self._published is None
        if never_of_use or time.monotonic() >= self._began_s + self._settings.head_start_s:
            self._over = True
            return False
        try:
            with self._one_thread():
                self._step()
        except torch.OutOfMemoryError as error:
            log.warning("the head start is given up: %s", error)
            self._over = True
            return False
        every_s = self._settings.publish_every_s or PUBLISH_EVERY_S
        if self.is_of_use and (self._published is None or time.monotonic() > self._published_s + every_s):
            self._published, self._published_s = copy.deepcopy(self._network).eval(), time.monotonic()
            self._publish(self._published)
            log.info("weights after %d steps leave %s", self._steps, self._in_words())
        return True

    @property
    def is_of_use(self) -> bool:
        """Whether the network explains the frames better than an empty object would."""
        known = len(self._unexplained) == JUDGED_STEPS
        return known and fmean(self._unexplained) < BETTER_THAN_NOTHING * fmean(self._by_nothing)

    def end(self) -> FrameNetwork | None:
        """Learn no more; return the network, or the last one that was of use, or None."""
        learnt = self._network if self.is_of_use else self._published
        if self._steps:
            verdict = "of no use, training starts anew" if learnt is None else "training starts from there"
            log.info("head start of %d steps on frames alone: %s; %s", self._steps, self._in_words(), verdict)
        self._over = True
        # what was published last may still be written
        return None if learnt is None else copy.deepcopy(learnt).cpu()

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Leave the other processors to phase retrieval on the same host."""
        threads = torch.get_num_threads()
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _in_words(self) -> str:
        if not self._unexplained:
            return "nothing is known"
        here, nothing = fmean(self._unexplained), fmean(self._by_nothing)
        return f"{here:.3f} of the frames' energy unexplained, an empty object {nothing:.3f}"

    def _look_at(self, perspective: UnlabelledPerspective) -> bool:
        """Take the frames that have come; return False if they are too large."""
        if self._frames is not None and self._frames.is_of(perspective):
            return True
        if _group_of(perspective) < FEWEST:
            log.info("no head start: %d frames with all modes of their probe are too large", FEWEST)
            self._over = True
            return False
        first = self._frames is None
        self._frames = _Frames(perspective, self._device)
        if first:
            self._began_s = time.monotonic()
            self._network.scale_input_to(self._network.input_power(self._frames.counts))
            log.info("learning what explains the first frames, before there is ground truth")
        return True

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
        gradients = [one.grad for one in self._network.parameters() if one.grad is not None]
        if torch.nn.utils.get_total_norm(gradients).isfinite():
            self._optimizer.step()
        with torch.no_grad():
            nothing = Patches(torch.ones_like(patches.phase), torch.zeros_like(patches.phase))
            self._by_nothing.append(self._frames.loss(nothing, corners_px, roots).mean().item())
        self._unexplained.append(loss.item())
        self._steps += 1


def _group_of(perspective: UnlabelledPerspective) -> int:
    """Return how many frames a step can explain together."""
    wave_bytes = perspective.illumination.probe.size * np.dtype(np.complex64).itemsize
    return min(GROUP, STEP_BYTES // (WAVES * wave_bytes))


class _Frames:
    """The frames of a perspective so far, on the device."""

    def __init__(self, perspective: UnlabelledPerspective, device: torch.device) -> None:
        self._illumination, self._position_px = perspective.illumination, perspective.position_px
        self._group = _group_of(perspective)
        counts = np.maximum(np.concatenate(perspective.parts).astype(np.float32), 0.0)
        self.counts = torch.from_numpy(counts).to(device)
        """(n, y, x)"""
        # brightness is fitted; without very small and large numbers
        self._brightness = float(counts.mean(dtype=np.float64)) or 1.0
        probe = self._illumination.probe.astype(np.complex128)
        probe /= np.sqrt(np.square(np.abs(probe)).sum(axis=0).mean())
        self._probe = torch.fft.ifftshift(torch.from_numpy(probe.astype(np.complex64)).to(device), dim=AXES)
        mask = self._illumination.mask
        self._looked_at = None if mask is None else torch.fft.ifftshift(torch.from_numpy(~mask).to(device), dim=AXES)
        self._rounded_px: Tensor = torch.from_numpy(np.rint(self._position_px).astype(np.int64)).to(device)

    def is_of(self, perspective: UnlabelledPerspective) -> bool:
        """Whether these are all frames of a perspective."""
        return self._illumination is perspective.illumination and len(self._position_px) == len(perspective.position_px)

    def neighbours(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return some of the frames nearest to one of them, (n,); none that does not overlap with it."""
        away_px = np.abs(self._position_px - self._position_px[random.integers(len(self._position_px))])
        near = np.flatnonzero((away_px < self.counts.shape[1:]).all(axis=1))
        nearest = near[np.argsort(np.square(away_px[near]).sum(axis=1), kind="stable")][: self._group * OUT_OF]
        return random.choice(nearest, min(self._group, len(nearest)), replace=False)

    def corners_px(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """Return where patches lie among each other, (n, 2) as (y, x)."""
        rounded_px = self._rounded_px[chosen]
        return rounded_px - rounded_px.amin(dim=0)

    def roots(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """Return the square roots of counts of mean 1 (n, y, x), zero frequency at pixel (0, 0)."""
        roots: Tensor = torch.fft.ifftshift((self.counts[chosen] / self._brightness).sqrt(), dim=AXES)
        return roots

    def loss(self, patches: Patches, corners_px: Tensor, roots: Tensor) -> Tensor:
        """Return what is left unexplained, (n,)."""
        return overlap_loss(patches, corners_px, roots, self._probe, self._looked_at)
