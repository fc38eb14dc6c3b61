from __future__ import annotations

import pytest

from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, StrategyName
from ptychoflow.workflow.benchmarks.train import bench_train


@pytest.mark.parametrize(
    ("strategy", "representatives"),
    [
        (StrategyName.ER, 6),
        (StrategyName.DER, 6),
        (StrategyName.DERPP, 6),
        (StrategyName.DERPP_TWO_DRAWS, 12),
        (StrategyName.INCREMENTAL, 0),
    ],
)
def test_the_benchmark_measures_both_loops_and_judges_their_ratio(strategy: StrategyName, representatives: int) -> None:
    settings = TrainerSettings(
        strategy=strategy,
        model=ModelSettings(width=2, levels=2),
        batch_size=4,
        buffer=BufferSettings(capacity=50, representatives=6, candidates=4),
        threads=1,
    )
    measured = bench_train(frame_px=16, steps=3, rounds=3, settings=settings)
    (result,), targets = measured["results"], measured["targets"]
    assert result["ours_samples_per_s"] > 0
    assert result["bare_samples_per_s"] > 0
    assert (result["strategy"], result["batch"], result["representatives"]) == (strategy, 4, representatives)
    assert [target["name"] for target in targets] == ["train_ratio", "train_cpu_ratio"]
    for target, figure in zip(targets, ("ratio", "cpu_ratio"), strict=True):
        assert target["value"] == result[figure].lower > 0, "the lower bound counts"
        assert target["met"] == (target["value"] >= 1.0)
