"""Memory of rows: as large as asked for, pinned only for as long as it is used."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch

from ptychoflow.buffer.memory import HUGE_PAGE_BYTES, allocate


def test_large_memory_begins_at_a_huge_page_and_is_zero() -> None:
    memory = allocate(HUGE_PAGE_BYTES + 3)
    assert memory.shape == (HUGE_PAGE_BYTES + 3,)
    assert memory.data_ptr() % HUGE_PAGE_BYTES == 0
    assert not memory.any()


def test_large_pinned_memory_is_pinned_where_it_is_until_the_last_view_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: dict[int, int] = {}

    def register(address: int, nbytes: int, _flags: int) -> int:
        pinned[address] = nbytes
        return 0

    monkeypatch.setattr(
        torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=pinned.pop)
    )
    monkeypatch.setattr(torch.cuda, "check_error", lambda status: None)
    size = HUGE_PAGE_BYTES + 64
    memory = allocate(size, pinned=True)
    assert pinned == {memory.data_ptr(): size}
    view = memory[64:].view(torch.int16)
    del memory
    gc.collect()
    assert pinned
    view.fill_(7)
    del view
    gc.collect()
    assert not pinned
