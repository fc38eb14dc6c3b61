"""Images as samples of a running stream: what arrives, what is refused, and what an evaluation says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from trainer_streams import scan_start

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import ClassificationStart, FrameRole, Samples
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import ImageClassifier, Logits
from ptychoflow.trainer.models.classifier_settings import (
    ClassifierConfig,
    ClassifierSettings,
    ModelFamily,
    ViewSettings,
)
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.start import Announced
from ptychoflow.trainer.online.stream_checkpoint import join_progress, progress_state
from ptychoflow.trainer.pipelines.choice import choose_pipeline, format_of
from ptychoflow.trainer.pipelines.classification.evaluation import evaluate_tasks
from ptychoflow.trainer.pipelines.classification.settings import ClassificationTrainerSettings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings

START = ClassificationStart(run="test", tasks=2, classes=6, channels=1, stored_px=8)
ALONE = Rank(rank=0, world_size=1, device=torch.device("cpu"), precision=Precision.FLOAT32)
SMALL = ClassifierSettings(family=ModelFamily.SMALL, width=2)


def images(labels: list[int], *, role: FrameRole = FrameRole.TRAIN, first: int = 0) -> Arrays:
    """Make images whose brightness is ten times their label."""
    return {
        "index": np.arange(first, first + len(labels), dtype=np.int32),
        "role": np.full(len(labels), role, np.uint8),
        "label": np.array(labels),
        "image": np.stack([np.full((1, 8, 8), 10 * label, np.uint8) for label in labels]),
    }


@pytest.fixture
def ingest() -> SampleIngest:
    ingest = SampleIngest(format_of, queue_samples=100)
    ingest.route_message(0, START, {})
    return ingest


def test_images_are_queued_and_kept_with_their_labels(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(0), images([3, 1, 2]))
    ingest.route_message(2, Samples(0), images([5], role=FrameRole.VALIDATION, first=3))
    minibatch = ingest.queue.next_minibatch(3, timeout_s=1.0)
    assert minibatch is not None
    assert minibatch.keys() == {"image", "label"}
    assert minibatch["label"].tolist() == [3, 1, 2]
    assert (minibatch["image"][:, 0, 0, 0] == 10 * minibatch["label"]).all()
    assert ingest.validation()[0]["label"].tolist() == [5]
    assert ingest.frame_dtype == "uint8"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": np.array([6, -1])}, "a class that was not announced"),
        ({"image": np.zeros((2, 1, 8, 9), np.uint8)}, "image has shape"),
        ({"image": np.zeros((2, 1, 8, 8), np.float32)}, "must be uint8"),
        ({"label": np.array([0.0, 1.0])}, "must be uint8"),
    ],
)
def test_images_that_cannot_be_learnt_are_counted(
    ingest: SampleIngest, changes: dict[str, np.ndarray], reason: str
) -> None:
    ingest.route_message(1, Samples(0), images([0, 1]) | changes)
    ((said, count),) = ingest.counts.rejected.items()
    assert count == 2
    assert reason in said


def test_a_checkpoint_remembers_what_kind_of_stream_it_was(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(0), images([3, 1]))
    progress = join_progress([progress_state(ingest.progress()[0])], rank=0, ranks=1)
    assert progress.scan == START
    with pytest.raises(UserError, match="another one than the checkpoint's"):
        SampleIngest(format_of, queue_samples=10, earlier=progress).route_message(0, scan_start(), {})


class Known(ImageClassifier):
    """Is right about the labels 0 to 2, and has the label 3 among its five likeliest, 4 and 5 not."""

    def forward(self, images: torch.Tensor) -> Logits:
        label = images[:, 0, 0, 0].long() // 10
        scores = torch.tensor([0.0, 4.0, 3.0, 2.0, 1.0, 0.0]).repeat(len(label), 1)
        scores[torch.arange(len(label)), label] = torch.where(label < 3, 9.0, torch.where(label == 3, 1.5, -1.0))
        return Logits(scores)


def test_accuracies_are_told_by_task() -> None:
    config = ClassifierConfig(model=SMALL, view=ViewSettings(image_px=8), channels=1, stored_px=8, classes=6)
    kept = {0: images([0, 1, 3, 4]), 1: images([2, 5])}
    found = evaluate_tasks(Known(config).eval(), kept, rank=ALONE, limit=None)
    assert found is not None
    assert (found.top1, found.top5) == ({0: 0.5, 1: 0.5}, {0: 0.75, 1: 0.5})
    assert found.constant_per_perspective == pytest.approx({0: math.log(8), 1: math.log(4)})
    assert found.mean_over_seen == pytest.approx((found.per_perspective[0] + found.per_perspective[1]) / 2)
    assert evaluate_tasks(Known(config), {}, rank=ALONE, limit=None) is None


class Frequencies(ImageClassifier):
    """Looks at no image, and knows how frequent the classes are."""

    def forward(self, images: torch.Tensor) -> Logits:
        return Logits(torch.tensor([0.45, 0.05, 0.25, 1e-9, 1e-9, 0.25]).log().repeat(len(images), 1))


def test_who_knows_how_frequent_classes_are_is_no_better_than_the_constant() -> None:
    config = ClassifierConfig(model=SMALL, view=ViewSettings(image_px=8), channels=1, stored_px=8, classes=6)
    kept = {0: images([0] * 9 + [1]), 1: images([2, 5])}
    found = evaluate_tasks(Frequencies(config).eval(), kept, rank=ALONE, limit=None)
    assert found is not None
    assert found.mean_over_seen == pytest.approx(found.constant)
    assert found.constant < math.log(6)


def test_a_trainer_of_another_pipeline_says_so(ingest: SampleIngest) -> None:
    with pytest.raises(UserError, match="images came, but this trainer is set up for a scan"):
        choose_pipeline(TrainerSettings())(Announced(START, "uint8"), ingest=ingest, rank=ALONE, seed=0)
    small = ClassificationTrainerSettings(model=SMALL, image_px=8)
    with pytest.raises(UserError, match="a scan came, but this trainer is set up for images"):
        choose_pipeline(small)(Announced(scan_start(), "uint16"), ingest=ingest, rank=ALONE, seed=0)
    with pytest.raises(UserError, match=r"trainer.image_px is 9, but the images that come have 8 px"):
        wide = ClassificationTrainerSettings(model=SMALL, image_px=9)
        choose_pipeline(wide)(Announced(START, "uint8"), ingest=ingest, rank=ALONE, seed=0)
