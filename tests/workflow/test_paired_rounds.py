"""The statistics that benchmarks are judged by."""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import time

import pytest

from ptychoflow.workflow.benchmarks.paired_rounds import Took, measure_pairs, processor_time_s, spread, timed


def test_what_slows_both_sides_down_drops_out_of_the_ratio() -> None:
    slowness, asked = [9.0, 1.0, 1.3, 2.0, 0.7, 5.0, 1.1, 3.0], []

    def took(name: str, items: float, wall_s: float, cpu_s: float) -> Took:
        asked.append(name)
        return Took(items, slowness[(len(asked) - 1) // 2] * wall_s, cpu_s)

    pairs = measure_pairs(lambda: took("ours", 10, 2.0, 4.0), lambda: took("bare", 20, 3.0, 2.0), rounds=7)
    assert asked == ["ours", "bare", "bare", "ours"] * 4, "who comes first does not always come first"
    assert pairs.by_clock == pytest.approx((0.75, 0.75, 0.75))
    assert pairs.by_processor == pytest.approx((0.25, 0.25, 0.25))
    figures = pairs.figures("frames")
    assert figures["rounds"] == 7
    assert figures["bare_frames_per_s"] == pytest.approx(20 / 3.0 / 1.3)
    assert figures["ours_frames_per_cpu_s"] == pytest.approx(2.5)
    clock, processor = pairs.targets("edge", 0.7)
    assert (clock["name"], clock["met"]) == ("edge_ratio", True)
    assert (processor["name"], processor["met"]) == ("edge_cpu_ratio", False)


def test_targets_are_held_against_the_lower_bound() -> None:
    walls = iter([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    pairs = measure_pairs(lambda: Took(1, next(walls), 1.0), lambda: Took(1, 1.0, 1.0), rounds=6)
    assert pairs.by_clock == (1.0, 0.5, 1.0)
    assert pairs.targets("some", 0.9)[0] == {
        "name": "some_ratio",
        "value": 0.5,
        "target": 0.9,
        "direction": "min",
        "met": False,
    }


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (4, 0), (7, 0), (8, 1), (15, 3), (20, 5), (60, 23)])
def test_the_bounds_are_those_of_the_sign_test(count: int, outside: int) -> None:
    values = list(range(count))
    random.Random(count).shuffle(values)
    assert spread(values) == (statistics.median(values), outside, count - 1 - outside)


def test_the_bounds_miss_the_true_median_as_rarely_as_promised() -> None:
    draws = random.Random(0)
    below = sum(spread([draws.expovariate(1.0) for _ in range(15)]).lower > 0.6931 for _ in range(2000))
    assert 0.008 < below / 2000 < 0.03, "1.8 percent at 15 rounds"


def test_processor_time_is_that_of_all_threads_and_of_other_processes() -> None:
    took = timed(lambda: time.sleep(0.05), items=3)
    assert took.items == 3
    assert took.wall_s >= 0.05
    assert took.cpu_s < 0.02
    mine_s = processor_time_s([os.getpid()])
    assert mine_s == pytest.approx(time.process_time(), abs=0.05)
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(20.0,))
    process.start()
    try:
        assert process.pid is not None
        both_s = processor_time_s([os.getpid(), process.pid])
        assert both_s >= mine_s
    finally:
        process.kill()
        process.join()
    with pytest.raises(OSError, match="process"):
        processor_time_s([2**22 + 1])
