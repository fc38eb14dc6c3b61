from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.initial_weights import load_initial_weights
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import Heads, ModelSettings, NetworkConfig
from ptychoflow.trainer.models.tensor_file import BadWeights, digest
from ptychoflow.trainer.models.weights_file import Manifest, read_weights, write_weights

CONFIG = NetworkConfig(
    model=ModelSettings(width=2, levels=2), frame_shape_px=(16, 16), target_shape_px=(8, 8), amplitude_scale=1.5
)
CONSTANT = Patches(amplitude=torch.full((8, 8), 0.9), phase=torch.linspace(-1, 1, 64).reshape(8, 8))


def manifest(config: NetworkConfig = CONFIG) -> Manifest:
    return Manifest(
        version=3,
        step=120,
        network=config,
        validation_loss=0.25,
        final=False,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        run="test",
    )


@pytest.fixture
def network() -> FrameNetwork:
    torch.manual_seed(0)
    network = FrameNetwork(CONFIG)
    network.scale_input_to(9.0)
    return network


def rewritten(data: bytes, change: object) -> bytes:
    """Apply `change(tensors, manifest as a dict)` to a file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["manifest"])
    tensors = safetensors.torch.load(data)
    change(tensors, fields)  # type: ignore[operator]
    return safetensors.torch.save(tensors, metadata={"manifest": json.dumps(fields)})


def test_round_trip_gives_the_same_predictions(network: FrameNetwork) -> None:
    data = write_weights(network, manifest(), constant=CONSTANT)
    loaded = read_weights(data, digest(data))
    assert loaded.manifest == manifest()
    assert not loaded.network.training
    torch.testing.assert_close(loaded.constant_phase, CONSTANT.phase)
    torch.testing.assert_close(loaded.constant_amplitude, CONSTANT.amplitude)
    frames = torch.randint(0, 50, (3, 16, 16))
    expected = network.eval()(frames)
    found = loaded.network(frames)
    assert torch.equal(found.phase, expected.phase)
    assert torch.equal(found.amplitude, expected.amplitude)


def test_channels_last_networks_are_written_in_plain_order(network: FrameNetwork) -> None:
    plain = write_weights(network, manifest(), constant=CONSTANT)
    assert write_weights(network.to(memory_format=torch.channels_last), manifest(), constant=CONSTANT) == plain


def test_a_flipped_bit_is_refused(network: FrameNetwork) -> None:
    data = write_weights(network, manifest(), constant=CONSTANT)
    broken = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(BadWeights, match="SHA-256"):
        read_weights(broken, digest(data))


def test_a_flipped_bit_of_a_file_that_nobody_has_announced_is_refused(network: FrameNetwork, tmp_path: Path) -> None:
    data = write_weights(network, manifest(), constant=CONSTANT)
    for place in range(0, len(data), 97):
        broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(BadWeights):
            read_weights(broken)
    (tmp_path / "v000001.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        UserError, match=r"v000001.safetensors cannot be used: the file is damaged: its SHA-256 differs"
    ):
        load_initial_weights(FrameNetwork(CONFIG), tmp_path / "v000001.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors, _: tensors.pop("network.input_scale"), "missing or surplus tensors: network.input_scale"),
        (lambda tensors, _: tensors.update(extra=torch.ones(1)), "missing or surplus tensors: extra"),
        (lambda tensors, _: tensors["constant.phase"].fill_(float("nan")), "not finite"),
        (lambda tensors, _: tensors.update({"constant.phase": torch.ones(4, 4)}), "needs torch.float32 \\(8, 8\\)"),
        (lambda tensors, _: tensors.update({"constant.phase": torch.ones(8, 8).half()}), "torch.float16"),
        (lambda _, fields: fields["network"]["model"].update(width=3), "the manifest's network needs"),
        (lambda _, fields: fields["network"]["model"].update(width=512), "the manifest's network needs"),
        (lambda _, fields: fields["network"].update(target_shape_px=[64, 64]), "cannot map frames"),
        (lambda _, fields: fields.update(surprise=1), "manifest: .*surprise"),
        (lambda _, fields: fields.update(format=2), "manifest: .*format"),
    ],
)
def test_a_file_that_does_not_fit_its_manifest_is_refused(network: FrameNetwork, change: object, reason: str) -> None:
    data = rewritten(write_weights(network, manifest(), constant=CONSTANT), change)
    with pytest.raises(BadWeights, match=reason):
        read_weights(data)


def test_bytes_that_are_no_weights_file_are_refused(network: FrameNetwork) -> None:
    data = write_weights(network, manifest(), constant=CONSTANT)
    plain = safetensors.torch.save({"a": torch.ones(2)})
    for broken in (b"", b"short", b"\xff" * 200, data[: len(data) // 2], plain, b"\x05" + bytes(7) + b"nojson"):
        with pytest.raises(BadWeights):
            read_weights(broken)


def test_a_manifest_of_another_network_is_not_written(network: FrameNetwork) -> None:
    other = CONFIG.model_copy(update={"amplitude_scale": 3.0})
    with pytest.raises(ValueError, match="another network"):
        write_weights(network, manifest(other), constant=CONSTANT)


def test_training_starts_from_an_earlier_file(network: FrameNetwork, tmp_path: Path) -> None:
    path = tmp_path / "v000003.safetensors"
    path.write_bytes(write_weights(network, manifest(), constant=CONSTANT))
    fresh = FrameNetwork(CONFIG)
    load_initial_weights(fresh, path)
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_initial_weights_that_cannot_be_used_are_a_users_mistake(network: FrameNetwork, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(write_weights(network, manifest(), constant=CONSTANT))
    model = ModelSettings(width=2, levels=2, heads=Heads.PHASE)
    advice = "set trainer.model and retrieval.target_shape_px"
    here = f"belong to another network: model.heads is both in the file and phase here; {advice}"
    with pytest.raises(UserError, match=here):
        load_initial_weights(FrameNetwork(CONFIG.model_copy(update={"model": model})), path)
    with pytest.raises(UserError, match="No such file"):
        load_initial_weights(network, tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        load_initial_weights(network, tmp_path / "text.pth")
