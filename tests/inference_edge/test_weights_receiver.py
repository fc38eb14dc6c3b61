"""Which weights the edge accepts and uses, over the real channel."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing
from functools import partial

import msgspec
import numpy as np
import pytest
import zmq
from edge_weights import announce, network_of, overflow, weights, weights_file
from support import wait_until

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.runner import run_in_batches
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.model import Canary, Known, check_weights
from ptychoflow.inference_edge.ptychography.reconstructor import Reconstructor
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.inference_edge.wake_up import WakeUp
from ptychoflow.inference_edge.weights_receiver import WeightsReceiver
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.events import Part, WarningRaised, WeightsApplied, WeightsKept, WeightsRejected
from ptychoflow.streaming.messages import ScanStart, Weights
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer

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
SETTINGS = EdgeSettings(device=Device.CPU, backend=BackendName.EAGER, weights_kept=3)
FRAMES = np.random.default_rng(0).poisson(5, (6, 32, 32)).astype(np.uint16)


class Edge:
    """A receiver of weights with its telemetry."""

    def __init__(self, network, folder) -> None:
        self.events = []
        self.canary = Canary(FRAMES)
        self._hub = TelemetryHub(
            network, jsonl=folder / "t.jsonl", on_event=lambda one, _: self.events.append(one.event)
        )
        self._sender = TelemetrySender(network, part=Part.EDGE)
        self._client = WeightsClient(network, edge="edge")
        self.factory = RunnerFactory(SETTINGS)
        self.receiver = WeightsReceiver(
            self._client,
            telemetry=self._sender,
            final_weights=FinalWeights(RunFolder(folder)),
            weights_kept=SETTINGS.weights_kept,
        )

    @property
    def version(self) -> int:
        return self.receiver.model.version

    def poll(self) -> bool:
        limit_db = SETTINGS.refuse_below_db
        checks = {"scan": SCAN, "factory": self.factory, "canary": self.canary, "refuse_below_db": limit_db}
        self.receiver.fetch(lambda: partial(check_weights, **checks))
        return self.receiver.switch()

    def answer_to(self, version: int):
        """Wait until a version has been used or refused, and return what was said."""

        def answers() -> list:
            kinds = (WeightsApplied, WeightsRejected)
            return [one for one in self.events if isinstance(one, kinds) and one.version == version]

        wait_until(lambda: (self.poll(), answers())[1] != [])
        return answers()[-1]

    def close(self) -> None:
        self.receiver.close()
        self._client.close()
        self._sender.close()
        self._hub.close()


@pytest.fixture
def edge(network, tmp_path):
    with closing(Edge(network, tmp_path)) as one:
        yield one


@pytest.fixture
def trainer(network):
    with closing(WeightsServer(network)) as server:
        yield server


def test_bad_weights_are_refused_with_the_reason_and_the_old_ones_go_on(edge, trainer):
    trainer.publish(*weights(1))
    assert isinstance(edge.answer_to(1), WeightsApplied)
    data = weights_file(2)
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    bad = [
        (Weights(2, hashlib.sha256(data).hexdigest(), step=2, final=False), flipped, "SHA-256"),
        (*announce(3, data[:2000]), "safetensors"),
        (*announce(4, weights_file(40)), "version"),
        (*announce(5, weights_file(5, frame_px=64)), "frames"),
        (*announce(6, weights_file(6, target_px=32)), "patches"),
        (*announce(7, weights_file(7, spoil=overflow)), "finite"),
        (*announce(8, weights_file(8, spoil=lambda network: network.input_scale.fill_(float("nan")))), "not finite"),
    ]
    for announced, file, reason in bad:
        trainer.publish(announced, file)
        answer = edge.answer_to(announced.version)
        assert isinstance(answer, WeightsRejected)
        assert reason in answer.reason
        assert edge.version == 1
    trainer.publish(*announce(9, weights_file(9, width=4)))
    assert isinstance(edge.answer_to(9), WeightsApplied)
    assert edge.version == 9


def test_refused_final_weights_are_still_the_last(edge, trainer):
    trainer.publish(Weights(1, "0" * 64, step=1, final=True), weights_file(1))
    wait_until(lambda: edge.poll() or edge.receiver.final_seen)
    assert edge.receiver.model is None


def test_older_weights_are_refused(edge, network):
    """A trainer of ours never sends them; another one might."""
    sockets, codec = Sockets(network), Codec(Weights)
    with closing(sockets):
        trainer = sockets.bind(zmq.ROUTER, network.trainer_host, network.weights_port)

        def serve(version: int) -> None:
            announced, data = weights(version)
            arrays = {"safetensors": np.frombuffer(data, np.uint8)}
            trainer.send_multipart([client, *codec.encode(announced, arrays)])

        wait_until(lambda: (edge.poll(), trainer.poll(0))[1] != 0)
        client = trainer.recv_multipart()[0]
        serve(5)
        assert isinstance(edge.answer_to(5), WeightsApplied)
        serve(3)
        answer = edge.answer_to(3)
    assert isinstance(answer, WeightsRejected)
    assert "version 5 came before" in answer.reason
    assert edge.version == 5


def test_weights_too_large_for_a_message_never_arrive_and_the_next_ones_do(network, tmp_path, trainer, monkeypatch):
    monkeypatch.setattr("ptychoflow.streaming.weights_channel.ASK_AGAIN_S", 0.2)
    small, huge = weights_file(1), weights_file(2, width=8)
    limited = network.model_copy(update={"max_message_bytes": (len(small) + len(huge)) // 2})
    with closing(Edge(limited, tmp_path)) as edge:
        trainer.publish(*weights(1))
        edge.answer_to(1)
        trainer.publish(*announce(2, huge))
        wait_until(lambda: (edge.poll(), trainer.served)[1] > 1)
        trainer.publish(*weights(3))
        assert isinstance(edge.answer_to(3), WeightsApplied)
    assert not [one for one in edge.events if getattr(one, "version", None) == 2]


def test_what_is_not_weights_is_dropped_and_told(edge, network):
    with closing(Sockets(network)) as sockets:
        trainer = sockets.bind(zmq.ROUTER, network.trainer_host, network.weights_port)
        wait_until(lambda: (edge.poll(), trainer.poll(0))[1] != 0)
        trainer.send_multipart([trainer.recv_multipart()[0], b"no header", b"no file"])
        wait_until(lambda: edge.poll() or any(isinstance(one, WarningRaised) for one in edge.events))
    assert edge.receiver.model is None


def known_to_be(version: int, edge: Edge) -> Canary:
    """Return frames whose reference is what `version` makes of them, and which are predicted so now."""
    prediction = run_in_batches(edge.factory.prepare(network_of(version)), FRAMES, batch_max=64)
    positions = np.arange(12.0).reshape(6, 2)
    mosaic = Mosaic()
    mosaic.stitch(place_patches(*prediction, positions))
    image = mosaic.image()
    values = (np.nan_to_num(channel) for channel in (image.amplitude, image.phase))
    return Canary(FRAMES, Known(positions, ReferenceImage(*values, image.origin_px), prediction))


def test_much_worse_weights_are_refused(edge, trainer):
    trainer.publish(*weights(1))
    edge.answer_to(1)
    edge.canary = known_to_be(1, edge)
    trainer.publish(*weights(2))
    answer = edge.answer_to(2)
    assert isinstance(answer, WeightsRejected)
    assert "PSNR" in answer.reason
    trainer.publish(*announce(3, weights_file(1).replace(b'version\\":1', b'version\\":3')))
    assert isinstance(edge.answer_to(3), WeightsApplied)


def test_rolling_back_holds_a_version_until_newer_ones_are_followed_again(edge, trainer):
    for version in range(1, 5):
        trainer.publish(*weights(version))
        edge.answer_to(version)
    assert not edge.receiver.roll_back(1)
    wait_until(lambda: any("kept are [2, 3, 4]" in one.text for one in edge.events if isinstance(one, WarningRaised)))
    assert edge.receiver.roll_back(2)
    assert not edge.receiver.roll_back(2)
    announced, data = weights(5, final=True)
    trainer.publish(announced, data)
    wait_until(lambda: edge.poll() or edge.receiver.final_seen)
    assert edge.version == 2
    assert edge.receiver.follow()
    assert edge.version == 5
    assert edge.receiver.roll_back(2)
    wait_until(lambda: [one.version for one in edge.events if isinstance(one, WeightsApplied)][-4:] == [4, 2, 5, 2])
    kept = [one.versions for one in edge.events if isinstance(one, WeightsKept)]
    assert kept == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [2, 4, 5]]


def test_dropped_weights_are_not_used_again(edge, trainer):
    for version in (1, 2):
        trainer.publish(*weights(version))
        edge.answer_to(version)
    edge.receiver.discard(edge.receiver.model, "it gives no image")
    assert edge.version == 1
    gone = [WeightsKept([1]), WeightsRejected(2, "it gives no image"), WeightsApplied(1)]
    wait_until(lambda: edge.events[-3:] == gone)
    assert not edge.receiver.follow()
    with pytest.raises(RuntimeError, match="no weights"):
        edge.receiver.discard(edge.receiver.model, "again")
    trainer.publish(*weights(3))
    assert isinstance(edge.answer_to(3), WeightsApplied)


def test_all_frames_that_failing_weights_had_in_hand_are_imaged_by_those_before(edge, trainer):
    edge.canary = Canary(np.zeros_like(FRAMES))
    trainer.publish(*weights(1))
    edge.answer_to(1)
    trainer.publish(*announce(2, weights_file(2, spoil=lambda network: network.input_scale.fill_(3.4e38))))
    assert isinstance(edge.answer_to(2), WeightsApplied)
    told = []
    index = np.arange(3, dtype=np.int32)
    with closing(WakeUp()) as wake_up:
        reconstructor = Reconstructor(SETTINGS, weights=edge.receiver, wake_up=wake_up, warn=told.append)
        with closing(reconstructor):
            submitted = [
                reconstructor.submit(edge.receiver.model, DiffractionBlock(index, index, np.zeros((3, 2)), frames))
                for frames in (FRAMES[:3], FRAMES[3:])
            ]
            imaged = [reconstructor.place(one) for one in submitted]
    expected = run_in_batches(edge.factory.prepare(network_of(1)), FRAMES, batch_max=64)
    np.testing.assert_array_equal(np.concatenate([one.patches.phase for one in imaged]), expected.phase)
    assert [one.version for one in imaged] == [1, 1]
    assert edge.version == 1
    assert told == []


def test_final_weights_outlast_the_trainer_and_the_edge(network, tmp_path, trainer):
    with closing(Edge(network, tmp_path)) as edge:
        trainer.publish(*weights(1))
        edge.answer_to(1)
    with closing(Edge(network, tmp_path)) as edge:
        assert isinstance(edge.answer_to(1), WeightsApplied)
        stopped, data = weights(2, final=True)
        trainer.publish(msgspec.structs.replace(stopped, stopped=True), data)
        edge.answer_to(2)
        assert edge.receiver.final_seen
        assert FinalWeights(RunFolder(tmp_path)).read() is None, "the trainer may be started again and go on"
        trainer.publish(*weights(3, final=True))
        edge.answer_to(3)
    trainer.close()
    with closing(Edge(network, tmp_path)) as edge:
        assert isinstance(edge.answer_to(3), WeightsApplied)
        assert edge.receiver.final_seen
        assert [one.version for one in edge.events if isinstance(one, WeightsApplied)] == [3]
        resumed = WeightsServer(network)
        resumed.publish(*weights(4))
        assert isinstance(edge.answer_to(4), WeightsApplied)
        assert not edge.receiver.final_seen
        resumed.close()


def test_a_trainer_does_not_wait_for_an_edge_that_has_the_final_weights_already(network, tmp_path):
    final, data = weights(2, final=True)
    FinalWeights(RunFolder(tmp_path)).write(final, data)
    trainer = WeightsServer(network)
    trainer.publish(final, data)
    with closing(Edge(network, tmp_path)) as edge:
        edge.answer_to(2)
        leaving = threading.Thread(target=trainer.wait_until_served, args=(120.0,))
        leaving.start()
        wait_until(lambda: (edge.poll(), not leaving.is_alive())[1])
        assert edge.receiver.final_seen
    trainer.close()


@pytest.mark.parametrize("spoiled", ["cut short", "of another network", "of nobody"])
def test_kept_weights_that_cannot_be_used_are_asked_for_anew(network, tmp_path, trainer, spoiled):
    final, data = announce(7, weights_file(7, frame_px=64), final=True)
    FinalWeights(RunFolder(tmp_path)).write(final, data)
    kept = RunFolder(tmp_path).final_weights
    if spoiled == "cut short":
        kept.write_bytes(kept.read_bytes()[:-1])
    elif spoiled == "of nobody":
        kept.write_bytes(b"no weights")
    trainer.publish(*weights(2))
    with closing(Edge(network, tmp_path)) as edge:
        assert isinstance(edge.answer_to(2), WeightsApplied)
        assert not edge.receiver.final_seen
    assert not [one for one in edge.events if isinstance(one, WeightsRejected)], "the trainer sent none"


def test_weights_that_failed_on_their_last_frames_after_newer_ones_came_are_not_kept(edge, trainer):
    models = {}
    for version in (1, 2, 3):
        trainer.publish(*weights(version))
        edge.answer_to(version)
        models[version] = edge.receiver.model
    failed = models[2]
    edge.receiver.discard(failed, "no finite image")
    edge.receiver.discard(failed, "no finite image")
    assert (edge.version, edge.receiver.previous.version) == (3, 1)
    assert not edge.receiver.roll_back(2)
    wait_until(lambda: [one.version for one in edge.events if isinstance(one, WeightsRejected)] == [2])


def test_two_edges_follow_one_trainer_and_both_get_the_final_weights(network, tmp_path):
    (tmp_path / "other").mkdir()
    elsewhere = network.model_copy(update={"telemetry_port": network.frames_port, "fanout_port": network.samples_port})
    with closing(Edge(network, tmp_path)) as one, closing(Edge(elsewhere, tmp_path / "other")) as other:
        trainer = WeightsServer(network)
        trainer.publish(*weights(1))
        for edge in (one, other):
            assert isinstance(edge.answer_to(1), WeightsApplied)
        trainer.publish(*weights(2, final=True))
        one.answer_to(2)
        slow = []
        wait_until(lambda: (slow.append(other.poll()), other.receiver.final_seen)[1])
        assert trainer.wait_until_served(10.0)
        trainer.close()
        assert one.version == other.version == 2
