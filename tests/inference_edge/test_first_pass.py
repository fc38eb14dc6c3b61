"""Which frames the network has while others wait and others are stitched."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from posted_messages import Messages
from support import wait_until

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, Result, Runner
from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_queue import ReceivedBatch
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.first_pass import FirstPass
from ptychoflow.inference_edge.ptychography.frame_receiver import FrameReceiver
from ptychoflow.inference_edge.ptychography.model import Model
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.ptychography.reconstructor import Reconstructor
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.wake_up import WakeUp
from ptychoflow.streaming.events import MosaicKind

PATCH_PX = 4
BATCH_MAX = 64
SETTINGS = EdgeSettings(batch_max=BATCH_MAX, latency_max_ms=1e6)


class Network:
    """Predicts the mean count of a frame as its amplitude, when it is let."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.may_answer = threading.Semaphore(0)

    def __call__(self, counts: np.ndarray) -> Prediction:
        self.given.append(len(counts))
        assert self.may_answer.acquire(timeout=20)
        amplitude = np.broadcast_to(counts.mean(axis=(1, 2))[:, None, None], (len(counts), PATCH_PX, PATCH_PX))
        return Prediction(amplitude.copy(), np.zeros_like(amplitude))


class OverlappedRunner(Runner):
    """Runs a network on a device of its own, which can be given frames while it computes."""

    overlaps = True

    def __init__(self, network: Callable[[np.ndarray], Prediction]) -> None:
        self._network = network
        self.begun: list[int] = []

    def begin(self, counts: np.ndarray) -> Result:
        self.begun.append(len(counts))
        own = counts.copy()
        return lambda: self._network(own)


class Edge:
    """A first pass, with everything around it but the streams."""

    def __init__(self, messages: Messages, folder, settings: EdgeSettings = SETTINGS) -> None:
        self.network, self.counter, self.perspective = Network(), EdgeCounter(), Perspective(0, 0.0)
        self.wake_up, self.queue, self._frames = WakeUp(), DeferringQueue(folder), 0
        self.warnings: list[str] = []
        told: Callable[[str], None] = self.warnings.append
        receiver = FrameReceiver(messages, queue=self.queue, queue_max=1000, counter=self.counter, warn=told)
        self.reconstructor = Reconstructor(settings, weights=NoOtherWeights(), wake_up=self.wake_up, warn=told)
        self.first_pass = FirstPass(self.queue, self.reconstructor, counter=self.counter, hold=receiver.hold, warn=told)
        self.constant = Prediction(*np.zeros((2, 1, PATCH_PX, PATCH_PX), np.float32))
        self.model = Model(1, ImmediateRunner(self.network), self.constant)

    def arrive(self, count: int) -> None:
        index = np.arange(self._frames, self._frames + count, dtype=np.int32)
        block = DiffractionBlock(
            index=index,
            role=np.zeros(count, dtype=np.uint8),
            position_px=np.stack([index * PATCH_PX, index * 0], axis=1).astype(float),
            diffraction=(index[:, None, None] * np.ones((1, 2, 2))).astype(np.uint16),
        )
        self.perspective.queued += count
        self.queue.append(ReceivedBatch(self._frames, self.perspective, 1.0, left=count), block)
        self._frames += count

    def advance(self) -> int:
        """Return whether a batch was stitched, as a number."""
        return int(self.first_pass.advance(self.model) is not None)

    def answer(self, batches: int = 1) -> int:
        """Let the network answer what it was given together; return how many such were stitched in one step then."""
        self.network.may_answer.release(batches)
        assert select.select([self.wake_up.socket], [], [], 20)[0]
        self.wake_up.clear()
        return self.advance()

    def stitched(self) -> list[float]:
        amplitude = self.perspective.rendering(MosaicKind.FIRST_PASS).whole.image().amplitude
        return amplitude[::PATCH_PX, 0].tolist()


class NoOtherWeights:
    """Weights of which there is one version."""

    model = previous = None


@pytest.fixture
def edge(tmp_path):
    one = Edge(Messages(), tmp_path)
    with closing(one.wake_up), closing(one.queue), closing(one.reconstructor):
        yield one
        one.network.may_answer.release(100)


def test_the_next_full_batch_is_with_the_network_before_the_last_is_stitched(edge):
    edge.arrive(3)
    assert (edge.advance(), edge.first_pass.under_way, edge.first_pass.can_advance) == (0, 3, False)
    for _ in range(3):
        edge.arrive(BATCH_MAX)
    # nothing is known yet of how long a batch takes
    assert not edge.first_pass.can_advance
    assert edge.answer() == 1
    assert edge.stitched() == [0, 1, 2]
    # two of the three full batches
    assert edge.queue.in_turn == BATCH_MAX
    assert not edge.first_pass.can_advance
    assert [edge.answer() for _ in range(3)] == [1, 1, 1]
    assert edge.stitched() == list(range(3 + 3 * BATCH_MAX))
    assert edge.network.given == [3, BATCH_MAX, BATCH_MAX, BATCH_MAX]
    assert (edge.counter.inferred, edge.perspective.queued, edge.first_pass.under_way) == (3 + 3 * BATCH_MAX, 0, 0)
    assert edge.perspective.held == [0, *range(3, 3 + 3 * BATCH_MAX, BATCH_MAX)]


def test_small_batches_of_a_network_are_gathered_and_those_without_a_whole_one_wait(tmp_path):
    edge = Edge(Messages(), tmp_path, EdgeSettings(batch_max=20, latency_max_ms=1e6))
    with closing(edge.wake_up), closing(edge.queue), closing(edge.reconstructor):
        edge.arrive(30)
        edge.advance()
        assert edge.first_pass.under_way == 20, "nothing is known yet of how long a batch takes"
        assert edge.answer() == 1
        assert edge.first_pass.under_way == 10
        edge.arrive(59)
        assert not edge.first_pass.can_advance
        assert edge.answer() == 1
        assert edge.first_pass.under_way == 40
        edge.arrive(81)
        edge.advance()
        assert edge.first_pass.under_way == 40 + 60
        assert edge.answer(batches=2) == 1
        assert edge.answer(batches=3) == 1
        assert edge.answer(batches=2) == 1
        assert edge.network.given == [20, 10, *[20] * 7]
        assert edge.stitched() == list(range(170))


def test_fewer_frames_wait_for_the_network_and_are_imaged_together(edge):
    edge.arrive(1)
    edge.advance()
    edge.answer()
    edge.arrive(1)
    edge.advance()
    for _ in range(3):
        edge.arrive(1)
        assert not edge.first_pass.can_advance
    edge.answer()
    edge.answer()
    assert edge.network.given == [1, 1, 3]
    assert edge.stitched() == [0, 1, 2, 3, 4]


def test_a_message_is_held_when_all_of_its_frames_are_imaged(edge):
    edge.arrive(BATCH_MAX + 1)
    edge.advance()
    edge.answer()
    assert edge.perspective.held == []
    edge.answer()
    assert edge.perspective.held == [0]


def test_a_device_of_its_own_has_the_next_batch_before_the_first_is_done(edge):
    edge.model = Model(1, runner := OverlappedRunner(edge.network), edge.constant)
    edge.arrive(3)
    edge.advance()
    assert edge.answer() == 1
    for _ in range(3):
        edge.arrive(BATCH_MAX)
    edge.advance()
    wait_until(lambda: runner.begun == [3, BATCH_MAX, BATCH_MAX])
    wait_until(lambda: edge.network.given == [3, BATCH_MAX])
    assert edge.queue.in_turn == BATCH_MAX, "it has two batches and no more"
    assert [edge.answer() for _ in range(3)] == [1, 1, 1]
    assert edge.stitched() == list(range(3 + 3 * BATCH_MAX))


@pytest.mark.parametrize("kind", [ImmediateRunner, OverlappedRunner])
def test_an_error_of_the_network_reaches_whoever_stitches(edge, kind):
    def fail(_: np.ndarray) -> Prediction:
        raise RuntimeError("out of memory")

    block = DiffractionBlock(*np.zeros((4, 1, 2, 2)))
    submitted = edge.reconstructor.submit(Model(2, kind(fail), edge.constant), block)
    with pytest.raises(RuntimeError, match="out of memory"):
        edge.reconstructor.place(submitted)


@pytest.mark.parametrize("kind", [ImmediateRunner, OverlappedRunner])
def test_closing_waits_for_the_batch_that_is_computed_and_drops_the_others(kind):
    network, began = Network(), threading.Event()

    def predict(frames: np.ndarray) -> Prediction:
        began.set()
        return network(frames)

    model = Model(1, kind(predict), Prediction(*np.zeros((2, 1, PATCH_PX, PATCH_PX), np.float32)))
    with closing(WakeUp()) as wake_up:
        reconstructor = Reconstructor(SETTINGS, weights=NoOtherWeights(), wake_up=wake_up, warn=lambda text: None)
        computed, waiting = (
            reconstructor.submit(model, DiffractionBlock(*np.ones((4, 1, 2, 2)))).predicted for _ in range(2)
        )
        assert began.wait(20)
        closing_thread = threading.Thread(target=reconstructor.close)
        closing_thread.start()
        wait_until(waiting.cancelled)
        network.may_answer.release(2)
        closing_thread.join(20)
    assert computed.result(20).prediction.amplitude.shape == (1, PATCH_PX, PATCH_PX)
    assert waiting.cancelled()
    assert network.given == [1]
