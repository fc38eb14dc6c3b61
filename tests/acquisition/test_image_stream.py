"""Streaming a folder of images: order, roles, and what receivers get over real sockets."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from acquisition_runs import hub_into
from image_folders import DIGITS_PX, write_digits

from ptychoflow.acquisition.classification.decoding import decode
from ptychoflow.acquisition.classification.service import acquire_images
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import AcquisitionCounts, AnyEvent, ClassificationInfo, WarningRaised
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ClassificationStart, FrameRole, Frames, PerspectiveEnd, Samples, ScanEnd
from ptychoflow.streaming.settings import NetworkSettings, RunContext

CLASSES, TRAIN, VAL, SEED = 5, 6, 2, 3


@dataclass
class Received:
    start: ClassificationStart | None = None
    images: dict[tuple[int, int], tuple[int, int, bytes]] = field(default_factory=dict)
    """(role, label, pixels) by frame id."""
    ends: list[tuple[int, int]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    """Tasks in the order of their messages."""

    def take(self, message: object, arrays: dict[str, np.ndarray]) -> None:
        match message:
            case ClassificationStart():
                self.start = message
            case Frames(perspective=task) | Samples(perspective=task):
                self.order.append(task)
                rows = zip(*(arrays[name] for name in ("index", "role", "label", "image")), strict=True)
                for index, role, label, image in rows:
                    self.images[task, int(index)] = int(role), int(label), image.tobytes()
            case PerspectiveEnd(perspective=task, frames=frames):
                self.ends.append((task, frames))


def receive(network: NetworkSettings, consumer: str, port: int, world_size: int) -> Received:
    received, over = Received(), False
    with Inbox(network, consumer=consumer, port=port, world_size=world_size) as inbox:
        while not over:
            if (delivery := inbox.receive(0.2)) is not None:
                received.take(delivery.message, delivery.arrays)
                inbox.acknowledge([delivery.sequence])
                over = isinstance(delivery.message, ScanEnd)
    return received


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "digits", classes=CLASSES, train=TRAIN, val=VAL)


def settings(folder: Path, **changes: object) -> ClassificationSourceSettings:
    shape = {"tasks": 2, "channels": 1, "stored_px": DIGITS_PX}
    return ClassificationSourceSettings.model_validate(shape | {"folder": folder} | changes)


@contextmanager
def told(network: NetworkSettings, directory: Path) -> Iterator[list[AnyEvent]]:
    events: list[AnyEvent] = []
    with closing(hub_into(events, network, directory)):
        yield events


def test_the_order_holds_every_image_once_and_mixes_what_nothing_learns_from(digits: Path) -> None:
    tasks = order_stream(settings(digits), seed=SEED)
    assert tasks == order_stream(settings(digits), seed=SEED) != order_stream(settings(digits), seed=SEED + 1)
    images = [image for task in tasks for image in task.images]
    assert len({image.path for image in images}) == len(images) == CLASSES * (TRAIN + VAL)
    assert all((image.role is FrameRole.VALIDATION) == (image.path.parts[-3] == "val") for image in images)
    for task in tasks:
        assert {image.path.parent.name for image in task.images} == set(task.class_names)
        judged = [place for place, image in enumerate(task.images) if image.role is FrameRole.VALIDATION]
        assert min(judged) < len(task.images) / 2 < max(judged)


def test_more_tasks_than_classes_are_told_by_the_setting_of_a_run(digits: Path) -> None:
    with pytest.raises(UserError, match=r"^source.tasks is 6, but there are only 5 classes"):
        order_stream(settings(digits, tasks=6), seed=SEED)


def test_edge_and_ranks_get_the_images_and_their_labels(digits: Path, tmp_path: Path, network: NetworkSettings) -> None:
    spoilt = next((digits / "train" / "0").iterdir())
    spoilt.write_bytes(b"no image")
    shutil.copy(digits / "val" / "2" / "000.png", digits / "val" / "2" / "more.png")
    consumers = [
        ("edge", network.frames_port, 0),
        ("rank-0", network.samples_port, 2),
        ("rank-1", network.samples_port + 1, 2),
    ]
    with told(network, tmp_path) as events, ThreadPoolExecutor(len(consumers)) as pool:
        received = [pool.submit(receive, network, *one) for one in consumers]
        acquire_images(
            settings(digits, corrupt_share=0.1),
            PublishingSettings(batch_frames=4),
            network=network,
            run=RunContext("test", tmp_path, seed=SEED),
            stop=threading.Event(),
        )
        edge, *ranks = (one.result(timeout=60) for one in received)
    tasks = order_stream(settings(digits), seed=SEED)
    expected = {
        (number, index): (image.role, image.label, decode(image.path, channels=1, px=DIGITS_PX).tobytes())
        for number, task in enumerate(tasks)
        for index, image in enumerate(task.images)
        if image.path != spoilt
    }
    assert edge.images == expected
    assert ranks[0].images | ranks[1].images == expected
    assert not ranks[0].images.keys() & ranks[1].images.keys()
    for one in (edge, *ranks):
        assert one.start == ClassificationStart("test", tasks=2, classes=CLASSES, channels=1, stored_px=DIGITS_PX)
        assert one.ends == [(number, len(task.images)) for number, task in enumerate(tasks)]
        assert one.order == sorted(one.order)
    counts = [event for event in events if isinstance(event, AcquisitionCounts)][-1]
    assert (counts.acquired, counts.rejected) == (len(expected) + 1, 1)
    assert counts.samples == counts.published == len(expected)
    (warning,) = (event for event in events if isinstance(event, WarningRaised))
    assert str(spoilt) in warning.text
    (info,) = (event for event in events if isinstance(event, ClassificationInfo))
    assert [set(names) for names in info.class_names] == [set(task.class_names) for task in tasks]
    names, counts = (itertools.chain(*of_tasks) for of_tasks in (info.class_names, info.validation))
    assert dict(zip(names, counts, strict=True)) == {str(label): VAL + (label == 2) for label in range(CLASSES)}


def test_too_many_corrupt_images_end_the_stream(digits: Path, tmp_path: Path, network: NetworkSettings) -> None:
    for file in (digits / "train" / "0").iterdir():
        file.write_bytes(b"no image")
    nobody = PublishingSettings(edge=False, trainer=False)
    with pytest.raises(UserError, match=r"of 40 images cannot be read, more than source.corrupt_share = 0.05 allows"):
        acquire_images(
            settings(digits, corrupt_share=0.05),
            nobody,
            network=network,
            run=RunContext("test", tmp_path, seed=SEED),
            stop=threading.Event(),
        )


@pytest.mark.parametrize("change", ["added", "renamed"])
def test_a_run_is_not_gone_on_with_when_its_images_are_others(
    digits: Path, tmp_path: Path, network: NetworkSettings, change: str
) -> None:
    """Their order would be another one, so that some would come twice and others never."""

    def acquire(stop: threading.Event) -> None:
        acquire_images(
            settings(digits),
            PublishingSettings(edge=False, trainer=False),
            network=network,
            run=RunContext("test", tmp_path, seed=SEED),
            stop=stop,
        )

    stopped = threading.Event()
    stopped.set()
    with told(network, tmp_path):
        for _ in range(2):
            acquire(stopped)
    first = min((digits / "train" / "0").iterdir())
    if change == "added":
        shutil.copy(first, first.with_name("z.png"))
    else:
        first.rename(first.with_name("z.png"))
    with told(network, tmp_path), pytest.raises(UserError, match="tells of another scan, of other images"):
        acquire(stopped)
