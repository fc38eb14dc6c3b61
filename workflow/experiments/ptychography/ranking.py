"""How well the score without ground truth ranks predictions by their true error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.calibration import rank_correlation
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.streaming.codec import Arrays
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset

LEAST = 3
"""Values of which a rank correlation says anything."""


def rank_by_residual(
    dataset: Dataset, validation: Mapping[int, Arrays], predict: Callable[[int, npt.NDArray[Any]], Arrays]
) -> dict[str, Any] | None:
    """Return Spearman's rank correlation of residuals and true errors over validation frames.

    The true error of a frame is L1 of the amplitude plus L1 of the phase. Blocks.

    Args:
        dataset: the scan.
        validation: its validation samples by perspective.
        predict: makes patches (n, y, x), amplitude and phase, of a perspective's validation frames, counts (n, y, x).

    Returns:
        `per_frame`: over all frames; `within_perspectives`: the mean of those over the frames of one perspective;
        `per_perspective`: of the perspectives' means; `residual` of the predictions and `residual_of_truth`, means.
        None where there is no probe, or hardly a validation frame.
    """
    residuals, errors, best = [], [], []
    for part in dataset:
        samples = validation.get(part.index)
        if part.probe is None or samples is None:
            continue
        found = predict(part.index, samples["diffraction"])
        score = forward_residuals(samples["diffraction"], found["amplitude"], found["phase"], part.probe, part.mask)
        error = sum(
            np.abs(found[name] - samples[name].astype(np.float64)).mean(axis=(1, 2)) for name in ("amplitude", "phase")
        )
        lit = np.isfinite(score)
        residuals.append(score[lit])
        errors.append(np.asarray(error)[lit])
        truth = forward_residuals(samples["diffraction"], samples["amplitude"], samples["phase"], part.probe, part.mask)
        best.append(truth[lit])
    if sum(map(len, residuals)) < LEAST:
        return None
    pairs = list(zip(residuals, errors, strict=True))
    return {
        "per_frame": _spearman(np.concatenate(residuals), np.concatenate(errors)),
        "within_perspectives": _mean([_spearman(*pair) for pair in pairs]),
        "per_perspective": _spearman(*(np.array([part.mean() for part in parts]) for parts in (residuals, errors))),
        "residual": float(np.concatenate(residuals).mean()),
        "residual_of_truth": float(np.concatenate(best).mean()),
    }


def _spearman(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float | None:
    """Return the rank correlation; None of too few, or of values that are all the same."""
    if len(first) < LEAST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return rank_correlation(first, second)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
