"""What `ptychoflow experiment ptychography` tells of losses, with exact values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychoflow.workflow.experiments.ptychography.callback import LossRecord
from ptychoflow.workflow.experiments.ptychography.experiment import _against
from ptychoflow.workflow.experiments.ptychography.figures import figures
from ptychoflow.workflow.experiments.ptychography.plots import _aligned
from ptychoflow.workflow.experiments.ptychography.transfer import (
    backward_transfer,
    forgetting,
    forward_transfer,
    means_over_seen,
    of_both,
)
from ptychoflow.workflow.experiments.table import UNKNOWN

LOSSES = [[0.4, 0.9, 0.8], [0.5, 0.3, 0.7], [0.7, 0.4, 0.2]]


def test_figures_of_a_matrix_of_losses() -> None:
    assert means_over_seen(LOSSES, [0, 1, 2], [0, 1, 2]) == pytest.approx({0: 0.4, 1: 0.4, 2: 1.3 / 3})
    assert of_both(LOSSES, [0, 1, 2], [0, 1, 2]) == LOSSES
    assert forgetting(LOSSES) == pytest.approx(((0.7 - 0.4) + (0.4 - 0.3)) / 2)
    assert backward_transfer(LOSSES) == pytest.approx(((0.4 - 0.7) + (0.3 - 0.4)) / 2)
    assert forward_transfer(LOSSES, [1.0, 1.0, 1.0]) == pytest.approx(((1.0 - 0.9) + (1.0 - 0.7)) / 2)
    assert forgetting([[0.4]]) is None


def test_figures_where_perspectives_lack_validation_or_training_frames() -> None:
    """Learnt were 1, 3, 4 and 6; validation frames have 2, 3 and 6."""
    losses = [[0.8, 0.9, 1.0], [0.7, 0.3, 0.9], [0.6, 0.5, 0.8], [0.5, 0.4, 0.2]]
    learnt, validated = [1, 3, 4, 6], [2, 3, 6]
    assert means_over_seen(losses, learnt, validated) == pytest.approx({3: 0.5, 4: 0.55, 6: 1.1 / 3})
    assert of_both(losses, learnt, validated) == [[0.3, 0.9], [0.4, 0.2]]
    record = LossRecord(validated, [1.0, 1.1, 1.2], learnt, losses, [], losses)
    found = figures(record, None, at_once=False)
    assert (found["learnt"], found["validation_loss"][-1]) == ([3, 4, 6], pytest.approx(1.1 / 3))
    assert found["forgetting"] == pytest.approx(0.1)
    assert found["forward_transfer"] == pytest.approx(1.2 - 0.9)


def test_curves_of_seeds_with_void_perspectives_go_by_their_numbers() -> None:
    """With the first seed nothing of perspective 1 could be learnt, with the second nothing of perspective 2."""
    first = {"learnt": [0, 2, 3], "validation_loss": [0.5, 0.3, 0.2]}
    second = {"learnt": [0, 1, 3], "validation_loss": [0.7, 0.6, 0.4]}
    learnt, losses = _aligned([first, second])
    assert learnt.tolist() == [1, 2, 3, 4]
    assert np.array_equal(losses, [[0.5, np.nan, 0.3, 0.2], [0.7, 0.6, np.nan, 0.4]], equal_nan=True)


def run(seed: int, loss: float) -> dict[str, Any]:
    return {"seed": seed, "validation_loss": [1.0, loss]}


def test_methods_are_compared_seed_by_seed() -> None:
    baseline = [run(0, 1.0), run(1, 2.0), run(2, 0.5)]
    against = _against(baseline)
    assert against(baseline) == ""
    assert against([run(1, 1.0), run(0, 0.9), run(2, 0.55)]) == "-16.7 % ± 30.6 (2 of 3 lower)"
    assert against([run(1, 1.0)]) == "-50.0 %"
    assert against([run(7, 1.0)]) == UNKNOWN
