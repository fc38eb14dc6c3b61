from __future__ import annotations

import numpy as np
import pytest
import torch
from trainer_streams import FRAME, TARGET, samples

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator

EVALUATOR = Evaluator(precision=Precision.FLOAT32, device=torch.device("cpu"))
CONSTANT = Patches(amplitude=torch.full(TARGET, 0.8), phase=torch.zeros(TARGET))
SAMPLES = {0: samples(range(70)), 3: samples(range(70, 80))}


@pytest.fixture
def network() -> FrameNetwork:
    torch.manual_seed(0)
    config = NetworkConfig(model=ModelSettings(width=2, levels=2), frame_shape_px=FRAME, target_shape_px=TARGET)
    return FrameNetwork(config).eval()


def loss(predicted: Patches, arrays: Arrays) -> float:
    """L1 amplitude + L1 phase in NumPy."""
    errors = [
        np.abs(found.detach().numpy() - arrays[name].astype(np.float32)).mean()
        for name, found in predicted._asdict().items()
    ]
    return float(sum(errors))


def test_losses_are_means_over_the_frames_of_each_perspective(network: FrameNetwork) -> None:
    result = EVALUATOR.evaluate(network, CONSTANT, SAMPLES, limit=None)
    assert result is not None
    expected = {
        perspective: loss(network(torch.from_numpy(arrays["diffraction"])), arrays)
        for perspective, arrays in SAMPLES.items()
    }
    assert result.per_perspective == pytest.approx(expected, rel=1e-5)
    assert result.mean_over_seen == pytest.approx((expected[0] + expected[3]) / 2, rel=1e-5)
    constant = [loss(CONSTANT, arrays) for arrays in SAMPLES.values()]
    assert result.constant == pytest.approx(sum(constant) / 2, rel=1e-5)


def test_a_limit_spreads_the_frames_evenly(network: FrameNetwork) -> None:
    result = EVALUATOR.evaluate(network, CONSTANT, SAMPLES, limit=14)
    assert result is not None
    rows = [0, 12, 23, 34, 46, 58, 69]
    chosen = {name: array[rows] for name, array in SAMPLES[0].items()}
    assert result.per_perspective[0] == pytest.approx(
        loss(network(torch.from_numpy(chosen["diffraction"])), chosen), rel=1e-5
    )


def test_without_validation_frames_there_is_no_result(network: FrameNetwork) -> None:
    assert EVALUATOR.evaluate(network, CONSTANT, {}, limit=None) is None
