"""The benchmark of live sources, with so few frames that little is measured but everything runs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ptychoflow.workflow.benchmarks.live import Case, bench_live
from ptychoflow.workflow.benchmarks.live_bare import BARE_DECODERS
from ptychoflow.workflow.benchmarks.live_detector import Stream, make_frames

SMALL, LARGE = Stream((32, 32), "uint16", "none"), Stream((96, 80), "uint32", "bslz4")


@pytest.mark.timeout(240)
def test_what_comes_is_what_was_sent_and_is_measured_beside_the_bare_decoder() -> None:
    cases = (Case(SMALL, 96), Case(LARGE, 48, crop_px=(32, 32)))
    measured = bench_live(cases=cases, rounds=2)
    cores = dict.fromkeys((1, len(os.sched_getaffinity(0))))
    assert [case["cores"] for case in measured["results"]] == [*cores, *cores]
    for case in measured["results"]:
        assert case["lost"] == 0
        assert case["frames_per_s"] > 0
        assert case["frames_per_cpu_s"] > 0
        assert case["cpu_ratio_to_bare_receiver"] > 0
    last = measured["results"][-1]
    for name in BARE_DECODERS:
        least, most = last[f"cpu_ratio_to_{name}_least"], last[f"cpu_ratio_to_{name}_most"]
        assert 0 < least <= last[f"cpu_ratio_to_{name}"] <= most
    assert [target["name"] for target in measured["targets"]] == [
        "live_lost_32x32_uint16_none",
        "live_frames_per_s_least_32x32_uint16_none",
        "live_lost_96x80_uint32_bslz4",
        "live_ratio_to_bare_96x80_uint32_bslz4",
    ]
    assert measured["targets"][-1]["value"] == last["cpu_ratio_to_imagecodecs"]


@pytest.mark.parametrize("name", BARE_DECODERS)
@pytest.mark.parametrize("shape_px", [(128, 128), (96, 80)])
def test_bare_decoders_decode(name: str, shape_px: tuple[int, int]) -> None:
    stream = Stream(shape_px, "uint32", "bslz4")
    frames = make_frames(stream)
    decode = BARE_DECODERS[name](stream)
    for number in (0, 1, len(frames) + 1):
        np.testing.assert_array_equal(decode(number), frames[number % len(frames)])
