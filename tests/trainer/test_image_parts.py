from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from ptychoflow.acquisition.classification.image_folder import ImageFile
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.continual_metrics import average_over_seen, backward_transfer, forgetting, forward_transfer
from ptychoflow.trainer.interface.loss import DISTANCES
from ptychoflow.trainer.models.accuracy import is_correct
from ptychoflow.trainer.models.augmentation import crop_at_random, crop_middle
from ptychoflow.trainer.models.classifier import ImageClassifier, make_network, untrained_classifier
from ptychoflow.trainer.models.classifier_settings import (
    ClassifierConfig,
    ClassifierSettings,
    ModelFamily,
    ViewSettings,
)
from ptychoflow.trainer.pipelines.classification.offline.epochs import Shards
from ptychoflow.trainer.pipelines.classification.offline.schedule import TaskSchedule
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.settings import (
    ClassificationSettings,
    ImageSettings,
    Sharding,
    TaskScheduleSettings,
)
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, Distance, LearningSettings
from ptychoflow.trainer.strategies.factory import make_strategy

FILES = [ImageFile(Path(f"{label}-{number}"), label) for label in range(4) for number in range(5)]
TASKS = (frozenset({3, 0}), frozenset({1, 2}))
ACCURACY = [[0.9, 0.1, 0.0], [0.6, 0.8, 0.2], [0.3, 0.7, 0.5]]


def shards(sharding: Sharding) -> Shards:
    return Shards(FILES, TASKS, sharding=sharding, world_size=2, seed=0)


@pytest.mark.parametrize("sharding", list(Sharding))
def test_ranks_share_an_epoch_without_overlap(sharding: Sharding) -> None:
    dealt = [shards(sharding).rows([0], rank=rank, epoch=0) for rank in (0, 1)]
    assert Counter(dealt[0] + dealt[1]) == Counter(row for row, file in enumerate(FILES) if file.label in TASKS[0])
    assert len(dealt[0]) == len(dealt[1])
    assert shards(sharding).rows([0], rank=0, epoch=0) == dealt[0]
    assert shards(sharding).rows([0], rank=0, epoch=1) != dealt[0]


def test_ranks_with_classes_of_their_own_see_no_others() -> None:
    for rank, label in ((0, 1), (1, 2)):
        rows = shards(Sharding.CLASSES).rows([1], rank=rank, epoch=3)
        assert {FILES[row].label for row in rows} == {label}


def test_an_epoch_has_as_many_steps_as_its_largest_share() -> None:
    three = Shards(FILES, TASKS, sharding=Sharding.SAMPLES, world_size=3, seed=0)
    assert three.steps_per_epoch([0], batch_size=2) == 2
    assert three.steps_per_epoch([0, 1], batch_size=2) == 4


def test_the_rate_warms_up_decays_and_starts_again_with_each_task() -> None:
    settings = TaskScheduleSettings(warm_up_epochs=2, decays=((3, 0.5), (4, 0.05)), largest_scale=4)
    schedule = TaskSchedule(settings, 0.1, minibatches=8)
    for first_step in (0, 50):
        schedule.begin_task(step=first_step, steps_per_epoch=10)
        rates = [schedule.rate(first_step + step, 0.0) for step in (0, 9, 19, 29, 30, 40, 49)]
        assert rates == pytest.approx([0.02, 0.2, 0.4, 0.4, 0.2, 0.02, 0.02])


def test_metrics_of_a_known_matrix() -> None:
    assert average_over_seen(ACCURACY[1], task=1) == pytest.approx(0.7)
    assert forgetting(ACCURACY) == pytest.approx(((0.9 - 0.3) + (0.8 - 0.7)) / 2)
    assert backward_transfer(ACCURACY) == pytest.approx(((0.3 - 0.9) + (0.7 - 0.8)) / 2)
    assert forward_transfer(ACCURACY, [0.3, 0.3, 0.1]) == pytest.approx(((0.1 - 0.3) + (0.2 - 0.1)) / 2)
    assert forgetting([[1.0]]) is None
    assert forgetting([[0.9, 0.8, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.7]]) == 0.0, "what came before it was learnt"


def test_correct_is_what_is_among_the_likeliest() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert is_correct(logits, torch.tensor([1, 2]), top=1).tolist() == [False, True]
    assert is_correct(logits, torch.tensor([1, 0]), top=2).tolist() == [True, False]
    assert is_correct(logits, torch.tensor([2, 0]), top=5).tolist() == [True, True]


def test_errors_and_distances_are_those_of_pytorch_per_sample() -> None:
    pipeline = Classification(classes=3, channels=1, stored_px=8)
    torch.manual_seed(0)
    logits, label, stored = torch.randn(4, 3), torch.tensor([0, 2, 1, 1]), torch.randn(4, 3).half()
    error, distance = (
        pipeline.error((logits,), (label,)),
        pipeline.distance((logits,), (stored,), DISTANCES[Distance.SQUARED]),
    )
    assert error.shape == distance.shape == (4, 1)
    torch.testing.assert_close(error.mean(), nn.functional.cross_entropy(logits, label))
    torch.testing.assert_close(distance.mean(), nn.functional.mse_loss(logits, stored.float()))


@pytest.mark.parametrize(
    ("family", "name", "parameters"),
    [
        (ModelFamily.TORCHVISION, "resnet18", 11_689_512),
        (ModelFamily.TORCHVISION, "resnet50", 25_557_032),
        (ModelFamily.TIMM, "ghostnet_050", 2_587_292),
    ],
)
def test_networks_have_their_published_size(family: ModelFamily, name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = make_network(ClassifierSettings(family=family, name=name), channels=3, classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_a_resnet_for_small_images_keeps_their_size_in_its_first_layer() -> None:
    network = make_network(ClassifierSettings(name="resnet18", small_images=True), channels=1, classes=10)
    seen: list[torch.Size] = []
    network.get_submodule("layer1").register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    assert network.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert seen == [torch.Size((1, 64, 28, 28))]


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        (ClassifierSettings(name="resnet19"), 3, "torchvision has no model 'resnet19'"),
        (ClassifierSettings(family=ModelFamily.TIMM, name="ghost"), 3, "timm has no model 'ghost'"),
        (ClassifierSettings(name="squeezenet1_1"), 1, "squeezenet1_1 takes images of three channels"),
    ],
)
def test_networks_that_do_not_exist_are_named(settings: ClassifierSettings, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_network(settings, channels=channels, classes=10)


@pytest.mark.parametrize(
    ("settings", "px", "message"),
    [
        (ClassifierSettings(name="squeezenet1_0"), 10, "squeezenet1_0 cannot .* images of 10 px: .*size is too small"),
        (ClassifierSettings(name="googlenet"), 64, "googlenet cannot be trained .* in training it has further outputs"),
        (
            ClassifierSettings(family=ModelFamily.TIMM, name="vit_tiny_patch16_224"),
            28,
            "Input height .28. doesn't match",
        ),
    ],
)
def test_networks_that_do_not_take_such_images_are_named(settings: ClassifierSettings, px: int, message: str) -> None:
    with pytest.raises(UserError, match=f"model.name: .*{message}.*choose another model, or images of another size"):
        untrained_classifier(classifier_config(settings, px=px))


@pytest.mark.parametrize("least_crop_area", [0.5, 1.0])
def test_whether_a_network_takes_images_is_tried_without_a_trace(least_crop_area: float) -> None:
    config = classifier_config(ClassifierSettings(name="resnet18"), px=32, least_crop_area=least_crop_area)
    torch.manual_seed(5)
    tried, drawn = untrained_classifier(config), torch.rand(1)
    torch.manual_seed(5)
    untouched = ImageClassifier(config).state_dict()
    assert torch.equal(drawn, torch.rand(1)), "a training repeats with its seed"
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in tried.state_dict().items())
    assert tried.training


def classifier_config(settings: ClassifierSettings, *, px: int, least_crop_area: float = 1.0) -> ClassifierConfig:
    view = ViewSettings(image_px=px, least_crop_area=least_crop_area, flip=True)
    return ClassifierConfig(model=settings, view=view, channels=3, stored_px=px, classes=10)


def test_a_crop_of_the_whole_is_the_image_or_its_mirror_image() -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 3, 8, 8)
    cropped = crop_at_random(images, px=8, least_area=0.9999, flip=True)
    assert cropped.shape == images.shape
    mirrored = 0
    for image, found in zip(images, cropped, strict=True):
        differences = [(found - candidate).abs().mean().item() for candidate in (image, image.flip(2))]
        mirrored += differences[1] < differences[0]
    assert 2 <= mirrored <= 14  # a fair coin leaves this range with p < 0.001


def test_crops_lie_within_the_image_and_cover_what_they_should() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0.0, 1.0, 64)
    rows, columns = torch.meshgrid(ramp, ramp, indexing="ij")
    images = torch.stack([rows, columns]).expand(500, 2, 64, 64)
    cropped = crop_at_random(images, px=32, least_area=0.25, flip=False)
    low, high = cropped.amin(dim=(2, 3)), cropped.amax(dim=(2, 3))
    assert low.min() >= 0.0
    assert high.max() <= 1.0
    area = (high - low).prod(dim=1)
    assert 0.20 < area.min() < 0.30, "a crop of a quarter is among 500"
    assert area.max() > 0.85
    assert low[:, 0].std() > 0.05, "crops lie in different places"


def test_where_crops_lie_does_not_depend_on_the_precision_of_the_layers() -> None:
    images = torch.randint(0, 256, (8, 3, 256, 256), dtype=torch.uint8)
    config = ClassifierConfig(
        model=ClassifierSettings(family=ModelFamily.SMALL),
        view=ViewSettings(image_px=64, least_crop_area=0.08),
        channels=3,
        stored_px=256,
        classes=2,
    )
    classifier, crops = ImageClassifier(config).train(), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            crops.append(classifier.prepare(images))
    assert crops[1].dtype == torch.float32
    torch.testing.assert_close(crops[0], crops[1], rtol=0, atol=1e-4)


def test_evaluation_sees_the_middle_and_training_another_crop_every_time() -> None:
    settings = ImageSettings(stored_px=12, image_px=8)
    network = ImageClassifier(settings.classifier(ClassifierSettings(family=ModelFamily.SMALL, width=2), classes=3))
    images = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    network.eval()
    middle = network.prepare(images)
    assert middle.equal(network.prepare(images))
    torch.testing.assert_close(middle * 0.225 + 0.45, crop_middle(images, px=8).float() / 255)
    network.train()
    first, second = network.prepare(images), network.prepare(images)
    assert first.shape == second.shape == (2, 3, 8, 8)
    assert not first.equal(second)


@pytest.mark.parametrize(("kind", "section"), [(ClassificationSettings, "training"), (TrainerSettings, "trainer")])
def test_a_buffer_that_cannot_be_is_told_with_the_section_that_it_was_set_in(
    kind: type[LearningSettings], section: str
) -> None:
    settings = kind(buffer=BufferSettings(capacity_bytes=10))
    pipeline = Classification(classes=2, channels=1, stored_px=8)
    with pytest.raises(UserError, match=rf"^{section}\.buffer: capacity_bytes 10 is too small"):
        make_strategy(settings, pipeline, device=torch.device("cpu"), seed=0)
