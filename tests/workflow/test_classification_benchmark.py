from __future__ import annotations

import pytest

from ptychoflow.trainer.models.classifier_settings import ClassifierSettings, ModelFamily
from ptychoflow.trainer.pipelines.classification.settings import (
    ClassificationSettings,
    ImageSettings,
)
from ptychoflow.trainer.settings import BufferSettings, StrategyName
from ptychoflow.workflow.benchmarks.classification import bench_images


@pytest.mark.parametrize(("strategy", "representatives"), [(StrategyName.ER, 3), (StrategyName.INCREMENTAL, 0)])
def test_the_benchmark_measures_both_loops_and_judges_their_ratio(strategy: StrategyName, representatives: int) -> None:
    settings = ClassificationSettings(
        strategy=strategy,
        model=ClassifierSettings(family=ModelFamily.SMALL, width=2),
        batch_size=4,
        buffer=BufferSettings(capacity=40, representatives=3, candidates=4),
        threads=1,
    )
    images = ImageSettings(stored_px=12, image_px=8)
    measured = bench_images(settings, images, classes=5, steps=3, rounds=3)
    (result,), targets = measured["results"], measured["targets"]
    assert (result["strategy"], result["batch"], result["representatives"]) == (strategy, 4, representatives)
    assert result["ours_samples_per_s"] > 0
    assert result["bare_samples_per_s"] > 0
    assert (result["hidden_fraction"] is None) == (strategy is StrategyName.INCREMENTAL)
    assert [target["name"] for target in targets] == ["classification_ratio", "classification_cpu_ratio"]
    for target, figure in zip(targets, ("ratio", "cpu_ratio"), strict=True):
        assert target["value"] == result[figure].lower > 0, "the lower bound counts"
        assert target["met"] == (target["value"] >= 0.95)
