"""A whole scan with its ground truth on disk, so that every method and rank reads the very same samples.

One folder per perspective, written once; arrays are memory-mapped when they are read.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import (
    UNFINISHED_SUFFIX,
    make_folder_durably,
    move_durably,
    write_durably,
)
from ptychoflow.streaming.kept_array import read_array
from ptychoflow.streaming.kept_struct import read_kept
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS
from ptychoflow.trainer.training.evaluation import spread_evenly

ADVICE = "remove the folder of the samples to have them made again"
COMPLETE = "complete.json"
REFERENCE = ("reference_amplitude", "reference_phase", "origin_px")


class _Complete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    angle_deg: float
    ground_truth_s: float = 0.0


@dataclass(frozen=True)
class PerspectiveSamples:
    """All frames of a perspective that have ground truth and are not void, in order of acquisition."""

    index: int
    angle_deg: float
    samples: Arrays
    """`trainer.pipelines.ptychography.pipeline.FIELDS`, one row per frame."""
    roles: npt.NDArray[np.uint8]
    """`FrameRole` of each row."""
    positions_px: npt.NDArray[np.float64] | None
    """(n, 2) as (y, x); None where the source has none."""
    reference: ReferenceImage | None
    """What the stitched image should be; None without positions."""
    probe: npt.NDArray[np.complex64] | None = None
    """(mode, y, x); None where the source has none."""
    mask: npt.NDArray[np.bool_] | None = None
    """(y, x), True for pixels of the frames that must be ignored; None where there are none."""
    ground_truth_s: float = 0.0
    """How long phase retrieval took."""

    def rows(self, role: FrameRole) -> npt.NDArray[np.int64]:
        """Return the rows of a role, in order."""
        return np.flatnonzero(self.roles == role)

    def of_role(self, role: FrameRole) -> Arrays:
        """Return copies of the samples of a role."""
        return self.at(self.rows(role))

    def at(self, rows: npt.NDArray[np.int64]) -> Arrays:
        """Return copies of the samples of rows."""
        return {name: np.asarray(array[rows]) for name, array in self.samples.items()}


Dataset = Sequence[PerspectiveSamples]


def validation_samples(dataset: Dataset, at_most: int | None) -> dict[int, Arrays]:
    """Return copies of the validation samples by perspective, of those that have some.

    Args:
        dataset: the scan.
        at_most: of each perspective, spread evenly over them; None takes all.
    """
    samples: dict[int, Arrays] = {}
    for part in dataset:
        rows = part.rows(FrameRole.VALIDATION)
        if at_most is not None:
            rows = rows[spread_evenly(len(rows), at_most)]
        if len(rows):
            samples[part.index] = part.at(rows)
    return samples


def with_fewer_labels(dataset: Dataset, one_in: int) -> Dataset:
    """Return the dataset in which one perspective in so many has ground truth: training frames of others are EXCLUDED.

    Validation frames keep their roles: they are looked at, not learnt from.
    """
    return [part if part.index % one_in == 0 else _unlabelled(part) for part in dataset]


def _unlabelled(part: PerspectiveSamples) -> PerspectiveSamples:
    roles = np.where(part.roles == FrameRole.TRAIN, FrameRole.EXCLUDED, part.roles).astype(np.uint8)
    return replace(part, roles=roles)


def ground_truth_s(dataset: Dataset) -> float:
    """Return how long phase retrieval took for what is learnt."""
    return sum(part.ground_truth_s for part in dataset if len(part.rows(FrameRole.TRAIN)))


def write_perspective(perspective: PerspectiveSamples, folder: Path) -> None:
    """Write one perspective, whose folder appears when it is complete. Raises OSError."""
    unfinished = folder / f"{perspective.index:04d}{UNFINISHED_SUFFIX}"
    shutil.rmtree(unfinished, ignore_errors=True)
    make_folder_durably(unfinished)
    arrays: dict[str, npt.NDArray[np.generic]] = {**perspective.samples, "roles": perspective.roles}
    if perspective.positions_px is not None:
        arrays["positions_px"] = perspective.positions_px
    if perspective.reference is not None:
        values = (perspective.reference.amplitude, perspective.reference.phase, perspective.reference.origin_px)
        arrays |= {name: np.asarray(value) for name, value in zip(REFERENCE, values, strict=True)}
    if perspective.probe is not None:
        arrays["probe"] = perspective.probe
    if perspective.mask is not None:
        arrays["mask"] = perspective.mask
    for name, array in arrays.items():
        np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
    write_durably(
        unfinished / COMPLETE, msgspec.json.encode(_Complete(perspective.angle_deg, perspective.ground_truth_s))
    )
    move_durably(unfinished, unfinished.with_suffix(""))


def is_written(index: int, folder: Path) -> bool:
    """Whether a perspective is there."""
    return (folder / f"{index:04d}" / COMPLETE).is_file()


def open_dataset(folder: Path) -> list[PerspectiveSamples]:
    """Open what `write_perspective` has written; arrays stay on the disk until they are used."""
    return [_open(path.parent) for path in sorted(folder.glob(f"[0-9]*[0-9]/{COMPLETE}"))]


def _open(folder: Path) -> PerspectiveSamples:
    def load(name: str) -> npt.NDArray[np.generic]:
        return read_array(folder / f"{name}.npy", advice=ADVICE, mapped=True)

    has_positions, has_reference, has_probe, has_mask = (
        (folder / f"{name}.npy").exists() for name in ("positions_px", REFERENCE[0], "probe", "mask")
    )
    reference = None
    if has_reference:
        amplitude, phase, origin = (np.asarray(load(name)) for name in REFERENCE)
        reference = ReferenceImage(amplitude, phase, (float(origin[0]), float(origin[1])))
    complete = read_kept(folder / COMPLETE, _Complete, advice=ADVICE)
    return PerspectiveSamples(
        index=int(folder.name),
        angle_deg=complete.angle_deg,
        samples={name: load(name) for name in FIELDS},
        roles=np.asarray(load("roles"), np.uint8),
        positions_px=np.asarray(load("positions_px"), np.float64) if has_positions else None,
        reference=reference,
        probe=np.asarray(load("probe"), np.complex64) if has_probe else None,
        mask=np.asarray(load("mask"), np.bool_) if has_mask else None,
        ground_truth_s=complete.ground_truth_s,
    )
