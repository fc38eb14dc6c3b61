"""Every backend gives what the network gives, and the fastest is chosen."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ptychoflow.inference_edge.backends import runner_factory
from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.choice import BACKENDS, fastest, usable_backends
from ptychoflow.inference_edge.backends.cuda_graph import Recordings
from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels, Prediction
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, run_in_batches
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn_settings import Heads, ModelSettings, NetworkConfig

CPU = torch.device("cpu")
FRAMES = np.random.default_rng(0).poisson(5, (9, 32, 32)).astype(np.float32)
MODELS = {
    "batch norm": ModelSettings(width=4),
    "phase only": ModelSettings(width=4, levels=4, fold=1, batch_norm=False, heads=Heads.PHASE),
}
ON_CPU = [one for one in BACKENDS if one.name is not BackendName.CUDA_GRAPH]


def make_network(model: ModelSettings) -> FrameNetwork:
    torch.manual_seed(0)
    network = FrameNetwork(NetworkConfig(model=model, frame_shape_px=(32, 32), target_shape_px=(20, 16)))
    network.scale_input_to(5.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def predicted(prediction: Prediction) -> list[np.ndarray]:
    return [channel for channel in prediction if channel is not None]


def make_backend(kind: type[Backend], precision: Precision = Precision.FLOAT32) -> Backend:
    if (obstacle := kind.obstacle(CPU)) is not None:
        pytest.skip(f"{kind.name}: {obstacle}")
    return kind(CPU, precision, threads=1, batch_max=8)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("kind", ON_CPU, ids=lambda kind: kind.name)
def test_a_backend_gives_what_the_network_gives_for_any_batch(kind, model):
    network = make_network(model)
    runner = make_backend(kind).prepare(copy.deepcopy(network))
    first = runner(FRAMES)
    assert (first.amplitude is None) == (model.heads is Heads.PHASE), "an amplitude of ones is left out"
    kept = [channel.copy() for channel in predicted(first)]
    for frames in (FRAMES, FRAMES[:1], FRAMES[3:7] * 100, FRAMES):
        with torch.no_grad():
            expected = network(torch.from_numpy(frames))
        for got, want in zip(predicted(runner(frames)), expected[-len(kept) :], strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want.numpy(), atol=2e-6, strict=True)
    for channel, before in zip(predicted(first), kept, strict=True):
        np.testing.assert_array_equal(channel, before)


@pytest.mark.parametrize("kind", ON_CPU, ids=lambda kind: kind.name)
def test_bfloat16_stays_close(kind):
    network = make_network(MODELS["batch norm"])
    got = make_backend(kind, Precision.BFLOAT16).prepare(copy.deepcopy(network))(FRAMES)
    with torch.no_grad():
        expected = network(torch.from_numpy(FRAMES))
    for channel, want in zip(got, expected, strict=True):
        assert channel.dtype == np.float32
        np.testing.assert_allclose(channel, want.numpy(), atol=0.05)


class _Repeating(EagerBackend):
    """Runs the network several times for every result."""

    times = 1

    def prepare(self, network):
        run = super().prepare(network)

        def run_again(counts):
            for _ in range(self.times - 1):
                run(counts)
            return run(counts)

        return ImmediateRunner(run_again)


class _Slow(_Repeating):
    name = BackendName.TORCHSCRIPT
    times = 6


def test_the_fastest_is_chosen_and_the_first_where_none_is_clearly_faster():
    network = make_network(MODELS["batch norm"])
    plain, slow = make_backend(EagerBackend), make_backend(_Slow)
    assert fastest([slow, plain], network, FRAMES) is plain
    assert fastest([plain, slow], network, FRAMES) is plain


class _Failing(EagerBackend):
    """Cannot be made ready for any network, as a compiler that is missing something."""

    name = BackendName.TORCHSCRIPT

    def prepare(self, network):
        raise RuntimeError("no compiler\nwhere it was looked for")


def test_a_backend_that_fails_is_left_out_unless_it_is_the_usual_one(caplog):
    network = make_network(MODELS["batch norm"])
    plain, failing = make_backend(EagerBackend), make_backend(_Failing)
    assert fastest([plain, failing], network, FRAMES) is plain
    assert "torchscript is left out, it fails on this network: no compiler" in caplog.messages
    with pytest.raises(RuntimeError, match="no compiler"):
        fastest([failing, plain], network, FRAMES)


def test_a_gpu_is_warmed_up_with_full_batches_first(monkeypatch):
    given = []

    class Recording(EagerBackend):
        def prepare(self, network):
            run = super().prepare(network)

            def recorded(counts):
                given.append(len(counts))
                return run(counts)

            return ImmediateRunner(recorded)

    monkeypatch.setattr(runner_factory, "usable_backends", lambda *_: [Recording])
    factory = RunnerFactory(EdgeSettings(device=Device.CPU, batch_max=4))
    factory.on_gpu = True
    factory.prepare(make_network(MODELS["batch norm"]))
    assert given == [4, 4, 4, 2, 1]


def test_auto_measures_once_per_layout_and_says_what_it_chose(caplog):
    caplog.set_level("INFO")
    factory = RunnerFactory(EdgeSettings(device=Device.CPU, precision=Precision.FLOAT32, batch_max=4))
    network = make_network(MODELS["phase only"])
    with torch.no_grad():
        expected = network(torch.from_numpy(FRAMES))
    for _ in range(2):
        prediction = run_in_batches(factory.prepare(copy.deepcopy(network)), FRAMES.astype(np.uint16), batch_max=4)
        np.testing.assert_allclose(prediction.phase, expected.phase.numpy(), atol=2e-6, strict=True)
    measured = [record.getMessage() for record in caplog.records if "measured with" in record.getMessage()]
    assert len(measured) == 1
    for name in ("eager", "torchscript"):
        assert name in measured[0]
    assert sum("inference with" in record.getMessage() for record in caplog.records) == 1


def test_a_backend_that_this_host_lacks_is_the_users_mistake(monkeypatch):
    monkeypatch.setattr("ptychoflow.inference_edge.backends.openvino.find_spec", lambda _: None)
    assert BackendName.OPENVINO not in [one.name for one in usable_backends(BackendName.AUTO, CPU)]
    with pytest.raises(UserError, match=r"pip install 'ptychoflow\[openvino\]'"):
        usable_backends(BackendName.OPENVINO, CPU)
    with pytest.raises(UserError, match="on CUDA only"):
        usable_backends(BackendName.CUDA_GRAPH, CPU)


def test_frames_one_by_one_are_imaged_too():
    network = make_network(MODELS["phase only"])
    factory = RunnerFactory(EdgeSettings(device=Device.CPU, precision=Precision.FLOAT32, batch_max=1))
    with torch.no_grad():
        expected = network(torch.from_numpy(FRAMES))
    prediction = run_in_batches(factory.prepare(copy.deepcopy(network)), FRAMES, batch_max=1)
    np.testing.assert_allclose(prediction.phase, expected.phase.numpy(), atol=2e-6, strict=True)


class _Recorder:
    """Repeats a network on the same tensors, as a CUDA graph does."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, network, counts_in, precision):
        self.recorded += 1
        with torch.no_grad():
            channels_out = [channel.clone() for channel in network(counts_in)]

        def repeat():
            for kept, channel in zip(channels_out, network(counts_in), strict=True):
                kept.copy_(channel)

        return repeat, channels_out


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_two_recordings_serve_all_versions_of_the_weights(model):
    networks = [PredictedChannels(make_network(model)) for _ in range(4)]
    for number, network in enumerate(networks):
        network.network.scale_input_to(1.0 + number)
        for parameter in network.parameters():
            parameter.data.mul_(1.0 + 0.1 * number)
    recorder = _Recorder()
    recordings = Recordings(networks[0], torch.zeros(len(FRAMES), 32, 32), Precision.FLOAT32, record=recorder)
    with torch.no_grad():
        expected = [network(torch.from_numpy(FRAMES)) for network in networks]
    for used in (0, 0, 1, 0, 2, 1, 3, 0, 3):
        frames = FRAMES if used else FRAMES[:4]
        got = recordings.run(networks[used], torch.from_numpy(frames))
        for channel, want in zip(got, expected[used], strict=True):
            np.testing.assert_array_equal(channel.numpy(), want[: len(frames)].numpy())
    assert recorder.recorded == 2


def test_new_weights_are_tried_while_others_image():
    networks = [PredictedChannels(make_network(MODELS["batch norm"])) for _ in range(3)]
    for number, network in enumerate(networks):
        network.network.scale_input_to(1.0 + number)
    with torch.no_grad():
        expected = [network(torch.from_numpy(FRAMES))[1].numpy() for network in networks]
    recordings = Recordings(networks[0], torch.zeros(len(FRAMES), 32, 32), Precision.FLOAT32, record=_Recorder())

    def image(number):
        return [
            np.array_equal(recordings.run(networks[number], torch.from_numpy(FRAMES))[1].numpy(), expected[number])
            for _ in range(20)
        ]

    with ThreadPoolExecutor(3) as pool:
        assert all(all(same) for same in pool.map(image, range(3)))
