"""Which GPU a rank takes, and what carries tensors between ranks, on hosts that have other GPUs than this one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from ptychoflow.streaming.device import Device
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer import device
from ptychoflow.trainer.settings import LearningSettings


@pytest.fixture
def set_devices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The GPUs that this process made its own."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def place(
    monkeypatch: pytest.MonkeyPatch, *, gpus: int, local_rank: int, local_ranks: int, first_gpu: int = 0
) -> tuple[str, str]:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    settings = LearningSettings(first_gpu=first_gpu)
    found = device._place(settings, local_rank=local_rank, local_ranks=local_ranks)
    return str(found.device), found.kind


@pytest.mark.parametrize(
    ("gpus", "first_gpu", "local_ranks", "expected"),
    [
        (0, 0, 2, [("cpu", "CPU"), ("cpu", "CPU")]),
        (2, 0, 2, [("cuda:0", "GPU"), ("cuda:1", "GPU")]),
        (4, 2, 2, [("cuda:2", "GPU"), ("cuda:3", "GPU")]),
        (1, 0, 2, [("cuda:0", "shared GPU"), ("cuda:0", "shared GPU")]),
        (3, 1, 3, [("cuda:1", "shared GPU"), ("cuda:2", "shared GPU"), ("cuda:1", "shared GPU")]),
    ],
)
def test_ranks_take_the_gpus_in_turn_and_share_them_where_there_are_fewer(
    gpus: int,
    first_gpu: int,
    local_ranks: int,
    expected: list[tuple[str, str]],
    set_devices: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [
        place(monkeypatch, gpus=gpus, local_rank=rank, local_ranks=local_ranks, first_gpu=first_gpu)
        for rank in range(local_ranks)
    ]
    assert places == expected
    assert set_devices == [int(name.removeprefix("cuda:")) for name, _ in expected if name != "cpu"]


def test_a_first_gpu_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"trainer\.first_gpu = 2, but this host has 2 GPUs"):
        place(monkeypatch, gpus=2, local_rank=0, local_ranks=1, first_gpu=2)


def test_cuda_without_a_gpu_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r'trainer\.device = "cuda"'):
        device._place(LearningSettings(device=Device.CUDA), local_rank=0, local_ranks=1)


CPU, OWN, SHARED = (
    device._Place(torch.device("cpu")),
    device._Place(torch.device("cuda", 0)),
    device._Place(torch.device("cuda", 0), shared=True),
)


def backends(places: list[device._Place]) -> list[str]:
    store = HashStore()
    with ThreadPoolExecutor(len(places)) as pool:
        chosen = [
            pool.submit(device._backend, where, store, rank=rank, world_size=len(places))
            for rank, where in enumerate(places)
        ]
        return [one.result(timeout=30.0) for one in chosen]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([CPU, CPU], "gloo"),
        ([OWN, OWN], "cpu:gloo,cuda:nccl"),
        ([SHARED, SHARED], "cpu:gloo,cuda:gloo"),
        ([OWN, SHARED, SHARED], "cpu:gloo,cuda:gloo"),
    ],
)
def test_all_ranks_choose_the_same_way_for_tensors(places: list[device._Place], expected: str) -> None:
    assert backends(places) == [expected] * len(places)


def test_ranks_with_and_without_a_gpu_are_told_which_they_are() -> None:
    with pytest.raises(UserError, match="rank 0: GPU, rank 1: CPU"):
        backends([OWN, CPU])
