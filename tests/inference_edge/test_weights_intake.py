"""Which weights the edge accepts, over the real channel."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from support import wait_until

from inference_edge.backends.base import BackendName
from inference_edge.inference import Imager
from inference_edge.settings import DeviceChoice, EdgeSettings
from inference_edge.weights import Canary
from inference_edge.weights_intake import WeightsIntake
from streaming.events import WeightsApplied, WeightsRejected
from streaming.messages import ScanStart, Weights
from streaming.telemetry import TelemetryHub, TelemetrySender
from streaming.weights_channel import WeightsClient, WeightsServer
from trainer.models.frame_network import FrameNetwork
from trainer.models.ptychonn import Patches
from trainer.models.settings import ModelSettings, NetworkConfig
from trainer.models.weights_file import Manifest, write_weights

SCAN = ScanStart(
    run="test",
    perspectives=1,
    frame_shape_px=(32, 32),
    target_shape_px=(16, 16),
    object_pixel_size_m=(1e-8, 1e-8),
    energy_eV=9000.0,
    detector_distance_m=1.0,
    detector_pixel_size_m=(75e-6, 75e-6),
)
SETTINGS = EdgeSettings(device=DeviceChoice.CPU, backend=BackendName.EAGER, weights_kept=3)
FRAMES = np.random.default_rng(0).poisson(5, (6, 32, 32)).astype(np.uint16)


def weights_file(version: int, *, frame_px: int = 32, target_px: int = 16, spoil=None) -> bytes:
    torch.manual_seed(version)
    config = NetworkConfig(
        model=ModelSettings(width=2), frame_shape_px=(frame_px, frame_px), target_shape_px=(target_px, target_px)
    )
    network = FrameNetwork(config)
    if spoil is not None:
        spoil(network)
    manifest = Manifest(
        version=version,
        step=version,
        network=config,
        validation_loss=None,
        final=False,
        created_at=datetime.now(UTC),
        run="test",
    )
    constant = Patches(amplitude=torch.ones(target_px, target_px), phase=torch.zeros(target_px, target_px))
    return write_weights(network, manifest, constant=constant)


def overflow(network: FrameNetwork) -> None:
    """Finite tensors whose product is not."""
    network.input_scale.fill_(3e38)
    for parameter in network.parameters():
        parameter.data.mul_(1e30)


def announce(version: int, data: bytes) -> tuple[Weights, bytes]:
    return Weights(version, hashlib.sha256(data).hexdigest(), step=version, final=False), data


def poll(intake: WeightsIntake) -> bool:
    intake.fetch(SCAN, lambda _: Canary(FRAMES))
    return intake.settle()


@pytest.fixture
def channel(network, tmp_path):
    events = []
    hub = TelemetryHub(network, jsonl=tmp_path / "t.jsonl", on_event=lambda one, _: events.append(one.event))
    sender = TelemetrySender(network, sender="test")
    server, client = WeightsServer(network), WeightsClient(network, edge="edge")
    intake = WeightsIntake(client, imager=Imager(SETTINGS), telemetry=sender, settings=SETTINGS)
    yield server, intake, events
    intake.close()
    client.close()
    server.close()
    sender.close()
    hub.close()


def test_bad_weights_are_refused_with_the_reason_and_the_old_ones_go_on(channel):
    server, intake, events = channel

    def offer(weights: Weights, data: bytes):
        server.publish(weights, data)

        def answered() -> bool:
            poll(intake)
            return bool(events) and events[-1].version == weights.version

        wait_until(answered)
        return events[-1]

    assert isinstance(offer(*announce(1, weights_file(1))), WeightsApplied)
    assert intake.model.version == 1
    data = weights_file(2)
    corrupted = data[:-1] + bytes([data[-1] ^ 1])
    bad = [
        (Weights(2, hashlib.sha256(data).hexdigest(), step=2, final=False), corrupted, "SHA-256"),
        (*announce(3, data[:2000]), "safetensors"),
        (*announce(4, weights_file(40)), "version"),
        (*announce(5, weights_file(5, frame_px=64)), "frames"),
        (*announce(6, weights_file(6, target_px=32)), "patches"),
        (*announce(7, weights_file(7, spoil=overflow)), "finite"),
    ]
    for weights, file, reason in bad:
        answer = offer(weights, file)
        assert isinstance(answer, WeightsRejected)
        assert reason in answer.reason
        assert intake.model.version == 1
    assert isinstance(offer(*announce(8, weights_file(8))), WeightsApplied)
    assert intake.model.version == 8


def test_refused_final_weights_are_still_the_last(channel):
    server, intake, _ = channel
    server.publish(Weights(1, "0" * 64, step=1, final=True), weights_file(1))
    wait_until(lambda: poll(intake) or intake.final_seen)
    assert intake.model is None
