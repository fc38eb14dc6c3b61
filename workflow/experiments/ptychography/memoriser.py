"""What only remembers: each frame gets the ground truth of the stored training frame that looks most alike.

A network that is not ahead of it has learnt nothing that a list of samples does not know.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.ptychography.most_alike import MostAlike
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import absolute_error
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.callback import LossRecord
from ptychoflow.workflow.experiments.ptychography.case import PtychographyCase, held_out_image_of, start_of
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset, ground_truth_s, validation_samples
from ptychoflow.workflow.experiments.ptychography.figures import figures
from ptychoflow.workflow.experiments.ptychography.held_out import image_held_out
from ptychoflow.workflow.experiments.ptychography.ranking import rank_by_residual
from ptychoflow.workflow.experiments.ptychography.stream import Rows, places
from ptychoflow.workflow.experiments.ptychography.warm_start import write_start


class Nearest(MostAlike):
    """For each of some frames, the stored one that looks most alike, and its ground truth.

    Args:
        frames: counts (n, y, x).
        dataset: holds what is stored.
    """

    def __init__(self, frames: npt.NDArray[Any], dataset: Dataset) -> None:
        super().__init__(frames)
        self._dataset = dataset

    def remember(self, stored: Rows) -> None:
        """Compare with the frames that stand at `stored` (m, 2), perspective and row."""
        for index in np.unique(stored[:, 0]):
            mine = stored[stored[:, 0] == index]
            self.store(self._dataset[index].samples["diffraction"][mine[:, 1]], mine)

    def truth(self) -> Arrays:
        """Return the ground truth of what looks most alike, float32 (n, y, x) each."""
        return {
            name: np.stack([self._dataset[index].samples[name][row] for index, row in self.place]).astype(np.float32)
            for name in Patches._fields
        }


def memorise(case: PtychographyCase, folder: CaseFolder) -> dict[str, Any]:
    """Remember perspective after perspective, and return the figures of a training. Blocks."""
    began_s, dataset = time.monotonic(), case.samples()
    validation = _Validation(validation_samples(dataset, case.comparison.validation_frames))
    mean_patch = MeanPatch(dataset[0].samples["phase"].shape[1:], device=torch.device("cpu"))
    record = LossRecord(validation.perspectives, validation.losses_of_constant(mean_patch.on_this_rank()))
    remembered = _Remembered(case)
    nearest = Nearest(validation.frames, dataset)
    for part in dataset:
        rows = part.rows(FrameRole.TRAIN)
        if not len(rows) and not len(part.rows(FrameRole.EXCLUDED)):
            continue
        new = places(part.index, rows)
        remembered.see(new)
        if case.method is Method.MEMORISER_BUFFER:  # which forgets, so that all is compared anew
            nearest, new = Nearest(validation.frames, dataset), remembered.places
        nearest.remember(new)
        if len(rows):
            mean_patch.accumulate(_patches(part.of_role(FrameRole.TRAIN)), first=len(rows))
        record.sections.append(part.index)
        record.matrix.append(validation.losses(nearest.truth()))
        record.constants.append(validation.losses_of_constant(mean_patch.on_this_rank()))
        folder.note_progress(len(record.sections), len(dataset))
    record.seconds = time.monotonic() - began_s

    def recall(frames: npt.NDArray[Any]) -> Arrays:
        found = Nearest(frames, dataset)
        found.remember(remembered.places)
        return found.truth()

    held_out = image_held_out(dataset, recall, mean_patch.on_this_rank())
    if held_out is not None:
        held_out.write_image(held_out_image_of(folder))
    recalled = validation.by_perspective(nearest.truth())
    ranking = rank_by_residual(dataset, validation.samples, lambda index, _frames: recalled[index])
    if case.comparison.warm_start_epochs:
        write_start(dataset, recall, start_of(folder))
    return figures(record, held_out, at_once=False) | {
        "residual_ranks": ranking,
        "ground_truth_s": ground_truth_s(dataset),
    }


class _Remembered:
    """The training frames that are stored: all, or a uniform sample of those seen.

    A random number for each frame makes the sample: the frames with the lowest ones of those seen.
    """

    def __init__(self, case: PtychographyCase) -> None:
        self._room = case.trainer.buffer.capacity if case.method is Method.MEMORISER_BUFFER else None
        self._random = np.random.default_rng(case.seed)
        self.places: Rows = np.empty((0, 2), np.int64)
        """(n, 2): perspective and row."""
        self._lots = np.empty(0)

    def see(self, new: Rows) -> None:
        """Take in the training frames at `new` (n, 2)."""
        self.places = np.concatenate([self.places, new])
        self._lots = np.concatenate([self._lots, self._random.random(len(new))])
        kept = np.sort(np.argsort(self._lots)[: self._room])
        self.places, self._lots = self.places[kept], self._lots[kept]


class _Validation:
    """The validation frames of all perspectives that have some, one after the other."""

    def __init__(self, parts: Mapping[int, Arrays]) -> None:
        if not parts:
            raise UserError("no perspective has a validation frame: set roles.validation_fraction")
        self.samples, self.perspectives = parts, list(parts)
        self.frames = np.concatenate([arrays["diffraction"] for arrays in parts.values()])
        self._truth = _patches(
            {name: np.concatenate([arrays[name] for arrays in parts.values()]) for name in Patches._fields}
        )
        self._counts = [len(arrays["diffraction"]) for arrays in parts.values()]

    def losses(self, found: Arrays) -> list[float]:
        """Return the loss on every perspective of patches (n, y, x) of all frames."""
        return self._means(absolute_error(_patches(found), self._truth))

    def losses_of_constant(self, constant: Patches) -> list[float]:
        """Likewise of one patch (y, x)."""
        return self._means(absolute_error(self._truth, constant))

    def by_perspective(self, found: Arrays) -> dict[int, Arrays]:
        """Return what belongs to each perspective of patches (n, y, x) of all frames."""
        ends = np.cumsum(self._counts)[:-1]
        parts = {name: np.split(array, ends) for name, array in found.items()}
        return {index: {name: parts[name][place] for name in found} for place, index in enumerate(self.perspectives)}

    def _means(self, errors: Tensor) -> list[float]:
        return [part.mean().item() for part in torch.split(errors.sum(dim=1), self._counts)]


def _patches(arrays: Mapping[str, npt.NDArray[Any]]) -> Patches:
    return Patches(*(torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in Patches._fields))
