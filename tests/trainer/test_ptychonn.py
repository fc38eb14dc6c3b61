from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.ptychonn import PtychoNN, edge_model, original_model
from ptychoflow.trainer.models.ptychonn_settings import InputTransform, ModelSettings, NetworkConfig

DATA = Path(os.environ.get("PTYCHOFLOW_DATA", Path(__file__).parents[3] / "shared" / "data"))
EDGE_WEIGHTS = DATA / "edge_ptychonn_best_model.pth"

ORIGINAL = NetworkConfig(model=original_model(), frame_shape_px=(64, 64), target_shape_px=(64, 64), amplitude_scale=1.0)
EDGE = NetworkConfig(model=edge_model(), frame_shape_px=(128, 128), target_shape_px=(128, 128))


def tiny(frame: tuple[int, int], target: tuple[int, int], **changes: object) -> NetworkConfig:
    model = ModelSettings.model_validate({"width": 2, "fold": 1} | changes)
    return NetworkConfig(model=model, frame_shape_px=frame, target_shape_px=target)


def parameters(config: NetworkConfig) -> int:
    return sum(parameter.numel() for parameter in PtychoNN(config).parameters())


def test_original_has_the_published_number_of_parameters() -> None:
    assert parameters(ORIGINAL) == 1_247_074


def test_edge_model_has_the_published_number_of_parameters() -> None:
    assert parameters(EDGE) == 733_921


def test_published_edge_weights_load_strictly_and_predict() -> None:
    if not EDGE_WEIGHTS.exists():
        pytest.skip(f"{EDGE_WEIGHTS} is absent: set PTYCHOFLOW_DATA to the folder with the published edge weights")
    network = FrameNetwork(EDGE)
    load_initial_weights(network, EDGE_WEIGHTS)
    published = torch.load(EDGE_WEIGHTS, map_location="cpu", weights_only=True)
    assert all(torch.equal(network.ptychonn.state_dict()[name], tensor) for name, tensor in published.items())
    patches = network(torch.full((2, 128, 128), 3, dtype=torch.uint16))
    assert patches.phase.shape == (2, 128, 128)
    assert torch.equal(patches.amplitude, torch.ones(2, 128, 128))


def test_edge_weights_refuse_another_layout() -> None:
    if not EDGE_WEIGHTS.exists():
        pytest.skip(f"{EDGE_WEIGHTS} is absent: set PTYCHOFLOW_DATA to the folder with the published edge weights")
    with pytest.raises(UserError, match=r"does not fit trainer\.model"):
        load_initial_weights(FrameNetwork(tiny((64, 64), (64, 64))), EDGE_WEIGHTS)


@pytest.mark.parametrize(
    ("frame", "target", "model"),
    [
        ((64, 64), (64, 64), {}),
        ((128, 128), (64, 64), {}),
        ((128, 128), (64, 64), {"levels": 4, "fold": 2}),
        ((96, 64), (48, 40), {}),
        ((100, 100), (30, 30), {"levels": 2}),
    ],
)
def test_output_has_the_target_shape_and_range(
    frame: tuple[int, int], target: tuple[int, int], model: dict[str, int]
) -> None:
    torch.manual_seed(0)
    patches = FrameNetwork(tiny(frame, target, **model))(torch.randint(0, 1000, (3, *frame)))
    assert patches.amplitude.shape == patches.phase.shape == (3, *target)
    assert patches.amplitude.dtype == torch.float32
    assert patches.amplitude.min() > 0.0
    assert patches.amplitude.max() < 2.0
    assert patches.phase.abs().max() < math.pi


def test_smaller_target_costs_one_decoder_stage_less() -> None:
    whole = PtychoNN(tiny((128, 128), (128, 128)))
    central = PtychoNN(tiny((128, 128), (64, 64)))
    assert sum(isinstance(layer, torch.nn.Upsample) for layer in whole.decoder2) == 3
    assert sum(isinstance(layer, torch.nn.Upsample) for layer in central.decoder2) == 2


def test_target_larger_than_the_frame_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"trainer\.model"):
        PtychoNN(tiny((64, 64), (128, 128)))


def test_counts_of_every_dtype_give_the_same_patches() -> None:
    torch.manual_seed(0)
    network = FrameNetwork(tiny((16, 16), (16, 16))).eval()
    counts = np.random.default_rng(0).integers(0, 200, (2, 16, 16))
    expected = network(torch.from_numpy(counts.astype(np.float32)))
    for dtype in (np.uint8, np.uint16, np.int32, np.uint32, np.float64, np.float16):
        patches = network(torch.from_numpy(counts.astype(dtype)))
        torch.testing.assert_close(patches.phase, expected.phase)
    torch.testing.assert_close(network(torch.from_numpy(counts).unsqueeze(1)).phase, expected.phase)


@pytest.mark.parametrize(
    ("transform", "expected"), [(InputTransform.SQRT, [[0, 0], [2, 3]]), (InputTransform.COUNTS, [[0, 0], [4, 9]])]
)
def test_input_transform_and_scale(transform: InputTransform, expected: list[list[int]]) -> None:
    network = FrameNetwork(tiny((16, 16), (16, 16), input_transform=transform))
    counts = torch.tensor([[[-5.0, 0.0], [4.0, 9.0]]])
    assert torch.equal(network.transform(counts), torch.tensor([expected], dtype=torch.float32))
    assert counts[0, 0, 0] == -5.0, "the caller's frames stay as they are"
    network.scale_input_to(network.input_power(counts))
    scaled = network.transform(counts) * network.input_scale
    assert scaled.square().mean().item() == pytest.approx(1.0)
