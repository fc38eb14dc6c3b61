"""What computes where, on hosts with and without GPUs."""

from __future__ import annotations

import pytest

from ptychoflow.streaming.device import VISIBLE_GPUS, Device, gpu_to_see, use_cuda
from ptychoflow.streaming.errors import UserError


@pytest.mark.parametrize(
    ("choice", "found", "expected"),
    [
        (Device.AUTO, 0, False),
        (Device.AUTO, 2, True),
        (Device.CPU, 2, False),
        (Device.CPU, 0, False),
        (Device.CUDA, 1, True),
    ],
)
def test_cuda_is_used_where_it_is_wanted_and_there(choice: Device, found: int, expected: bool) -> None:
    assert use_cuda(choice, found=found, setting="edge.device") is expected


def test_cuda_without_a_gpu_is_said_in_one_line() -> None:
    with pytest.raises(UserError, match=r'^edge\.device = "cuda", but this host has no usable GPU: .*"cpu"$'):
        use_cuda(Device.CUDA, found=0, setting="edge.device")


def test_a_gpu_that_the_host_does_not_have_is_not_taken_for_a_processor() -> None:
    with pytest.raises(UserError, match=r'^edge\.gpu = 5, counted from 0, is not there: .*edge\.device = "cpu"$'):
        use_cuda(Device.AUTO, found=0, setting="edge.device", gpu=5)
    assert not use_cuda(Device.CPU, found=0, setting="edge.device", gpu=5)
    assert use_cuda(Device.AUTO, found=1, setting="edge.device", gpu=5)


@pytest.mark.parametrize(
    ("visible", "number", "expected"),
    [(None, 0, "0"), (None, 3, "3"), ("4,5", 1, "5"), ("GPU-aa, GPU-bb", 0, "GPU-aa"), ("", 0, "")],
)
def test_a_part_sees_one_of_the_gpus_that_it_could_see(
    visible: str | None, number: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE_GPUS, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE_GPUS, visible)
    assert gpu_to_see(Device.AUTO, number, setting="edge.gpu") == {VISIBLE_GPUS: expected}
    assert gpu_to_see(Device.CPU, number, setting="edge.gpu") == {VISIBLE_GPUS: ""}


@pytest.mark.parametrize(("visible", "number"), [("4,5", 2), ("", 1)])
def test_a_gpu_that_cannot_be_seen_is_the_users_mistake(
    visible: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_GPUS, visible)
    with pytest.raises(UserError, match=f"edge.gpu = {number}"):
        gpu_to_see(Device.CUDA, number, setting="edge.gpu")
