"""How the edge of a stream of images counts, and which weights it takes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from posted_messages import Messages

from ptychoflow.inference_edge.classification.image_block import ImageBlock, image_block
from ptychoflow.inference_edge.classification.image_receiver import ImageReceiver
from ptychoflow.inference_edge.classification.model import ClassifierFactory, blank_images
from ptychoflow.inference_edge.classification.records import TaskRecords
from ptychoflow.inference_edge.classification.tally import TaskTally
from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_queue import FrameQueue
from ptychoflow.inference_edge.settings import InferenceSettings
from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.events import TaskScores
from ptychoflow.streaming.messages import ClassificationStart, FrameRole, Frames, PerspectiveEnd, ScanEnd, Weights
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_file import classifier_writer, read_classifier
from ptychoflow.trainer.models.classifier_settings import (
    ClassifierConfig,
    ClassifierSettings,
    ModelFamily,
    ViewSettings,
)
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.tensor_file import BadWeights, Stamp, digest

SETTINGS = InferenceSettings(device=Device.CPU, precision=Precision.FLOAT32, batch_max=3)
START = ClassificationStart(run="test", tasks=1, classes=6, channels=1, stored_px=8)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), np.uint8)


def classifier(classes: int = 6) -> ImageClassifier:
    torch.manual_seed(0)
    config = ClassifierConfig(
        model=ClassifierSettings(family=ModelFamily.SMALL, width=2),
        view=ViewSettings(image_px=8),
        channels=1,
        stored_px=8,
        classes=classes,
    )
    return ImageClassifier(config).eval()


def weights(network: ImageClassifier, version: int = 3) -> tuple[Weights, bytes]:
    stamp = Stamp(version=version, step=5, validation_loss=None, final=False, created_at=datetime.now(UTC), run="test")
    data = classifier_writer(network)(stamp)
    return Weights(version, digest(data), step=5, final=False), data


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    whole = {
        "index": np.arange(4, dtype=np.int32),
        "role": np.array([FrameRole.VALIDATION] * 3 + [FrameRole.TRAIN], np.uint8),
        "label": np.array([0, 1, 2, 3]),
        "image": IMAGES,
    }
    return whole | changes


def new_of(tally: TaskTally, block: ImageBlock) -> ImageBlock:
    return block.select(tally.mark_received(block.index))


def test_validation_images_alone_are_scored() -> None:
    tally = TaskTally(4)
    assert tally.event() is None
    likeliest_first = torch.tensor(
        [[9.0, 8, 7, 6, 5, 0], [9.0, 8, 7, 6, 5, 0], [5.0, 6, 0, 7, 8, 9], [0.0, 1, 2, 9, 3, 4]]
    )
    tally.count(image_block(arrays(), START), likeliest_first, version=7)
    tally.count(
        image_block(arrays(), START).select(np.array([True, False, False, False])),
        torch.full((1, 6), torch.nan),
        version=9,
    )
    assert tally.event() == TaskScores(4, 5, 4, top1=0.25, top5=0.5, oldest_version=7, newest_version=9)


def test_an_image_that_comes_twice_is_known() -> None:
    tally = TaskTally(0)
    block = image_block(arrays(), START)
    assert new_of(tally, block.select(np.array([True, False, True, False]))).index.tolist() == [0, 2]
    assert new_of(tally, block).index.tolist() == [3]
    assert new_of(tally, block).index.tolist() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": IMAGES[:, :, :4]}, "image is uint8"),
        ({"image": IMAGES.astype(np.float32)}, "image is float32"),
        ({"label": np.zeros(3, np.int64)}, "label is int64"),
    ],
)
def test_malformed_images_are_refused(changes: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(MalformedMessage, match=said):
        image_block(arrays(**changes), START)


def test_a_weights_file_holds_the_network_as_it_was() -> None:
    network = classifier()
    announced, data = weights(network)
    loaded = read_classifier(data, announced.sha256)
    assert loaded.manifest.network == network.config
    torch.testing.assert_close(loaded.network(torch.from_numpy(IMAGES)), network(torch.from_numpy(IMAGES)))
    accepted = ClassifierFactory(SETTINGS).check(announced, data, start=START, images=blank_images(START))
    torch.testing.assert_close(accepted.classify(IMAGES), network(torch.from_numpy(IMAGES)).logits)


def test_weights_that_do_not_fit_are_refused() -> None:
    factory = ClassifierFactory(SETTINGS)

    def refusal(announced: Weights, data: bytes) -> str:
        with pytest.raises(BadWeights) as caught:
            factory.check(announced, data, start=START, images=IMAGES)
        return str(caught.value)

    assert "made for 5 classes" in refusal(*weights(classifier(classes=5)))
    announced, data = weights(classifier())
    assert "SHA-256" in refusal(announced, data[:-1] + b"x")
    huge = classifier()
    huge.network[0].weight.data.fill_(3e38)
    assert "not finite" in refusal(*weights(huge))


def test_a_message_is_forgotten_only_when_a_record_holds_what_it_brought() -> None:
    messages = Messages()
    queue: FrameQueue[TaskTally, ImageBlock] = FrameQueue()
    receiver = ImageReceiver(
        messages, queue=queue, queue_max=100, counter=EdgeCounter(), warn=lambda text: None, earlier=()
    )

    def post_all() -> None:
        """What an acquisition sends, and sends again when it is started again."""
        messages.post(START)
        messages.post(Frames(0, 0.0, 0.0), arrays())
        messages.post(PerspectiveEnd(0, 0.0, 4))
        messages.post(ScanEnd(4))

    post_all()
    post_all()
    receiver.receive(0.0)
    assert receiver.ended
    assert (messages.acknowledged, receiver.recorded()) == ([], [])
    (waiting,) = queue.next_batch(100)
    tally = waiting.batch.section
    tally.count(waiting.block, torch.zeros(4, 6), version=1)
    tally.queued = 0
    assert receiver.recorded() == [5]
    assert tally.complete
    receiver.close_section(tally)
    assert receiver.recorded() == [2, 6]
    messages.post(START)
    receiver.receive(0.0)
    assert not receiver.ended
    receiver.acknowledge_all()
    assert messages.acknowledged == [0, 3, 4, 7, 8]


@pytest.mark.parametrize("change", [{"channels": 0}, {"stored_px": -8}, {"stored_px": 1 << 40}])
def test_an_announcement_of_images_that_cannot_be_is_dropped_and_told(change: dict[str, int]) -> None:
    messages, warnings = Messages(), list[str]()
    queue: FrameQueue[TaskTally, ImageBlock] = FrameQueue()
    receiver = ImageReceiver(
        messages, queue=queue, queue_max=100, counter=EdgeCounter(), warn=warnings.append, earlier=()
    )
    messages.post(START)
    senseless = messages.post(msgspec.structs.replace(START, **change))
    messages.post(Frames(0, 0.0, 0.0), arrays())
    receiver.receive(0.0)
    assert messages.acknowledged == [senseless]
    assert ["images of" in text for text in warnings] == [True]
    assert (receiver.start, queue.frames) == (START, 4)


def test_an_edge_that_is_started_again_goes_on_counting(tmp_path: Path) -> None:
    block, right = image_block(arrays(), START), torch.eye(6)[:4]
    before, half = TaskTally(2), np.array([True, True, False, False])
    before.count(new_of(before, block.select(half)), right[:2], version=3)
    TaskRecords(RunFolder(tmp_path)).write(before.record())
    (record,) = TaskRecords(RunFolder(tmp_path)).read()
    after = TaskTally(2, earlier=record)
    assert after.event() == before.event()
    rest = new_of(after, block)
    assert rest.index.tolist() == [2, 3]
    after.count(rest, right[2:] * torch.nan, version=8)
    assert after.event() == TaskScores(2, 4, 3, top1=2 / 3, top5=2 / 3, oldest_version=3, newest_version=8)
    after.ended = True
    TaskRecords(RunFolder(tmp_path)).write(after.record())
    assert [one.complete for one in TaskRecords(RunFolder(tmp_path)).read()] == [True]
