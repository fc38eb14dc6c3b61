"""What a rank keeps of every perspective takes bounded memory, or a few bytes a frame."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.online import validation_store
from ptychoflow.trainer.online.validation_store import ValidationStore

PERSPECTIVES = 40
MIB = 1 << 20


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(validation_store, "MEMORY_BYTES", 2 * MIB)
    monkeypatch.setattr(validation_store, "SEGMENT_BYTES", 5 * MIB)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def some(perspective: int, number: int) -> Arrays:
    """Half a MiB of samples, and a field of another type."""
    return {
        "diffraction": np.full((2, 256, 512), perspective, np.uint16),
        "phase": np.full((2, 3), number, np.float16),
    }


def filled(store: ValidationStore) -> ValidationStore:
    for perspective in range(PERSPECTIVES):
        for number in range(2):
            store.append(perspective, some(perspective, number))
        store.joined()
    return store


def require_all(samples: dict[int, Arrays]) -> None:
    assert list(samples) == list(range(PERSPECTIVES))
    for perspective, arrays in samples.items():
        assert (arrays["diffraction"] == perspective).all()
        assert arrays["phase"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
        assert arrays["phase"].dtype == np.float16


@pytest.mark.usefixtures("little_memory")
def test_validation_samples_of_many_perspectives_wait_on_the_disk(tmp_path: Path) -> None:
    store = filled(ValidationStore(spool_dir=tmp_path / "spool"))
    assert tracemalloc.get_traced_memory()[0] < 4 * MIB
    require_all(store.joined())
    store.append(3, some(3, 2))
    assert store.joined()[3]["phase"][:, 0].tolist() == [0, 0, 1, 1, 2, 2], "one that comes late is with the others"
    assert list((tmp_path / "spool").iterdir()) == [], "the files have no names"


@pytest.mark.usefixtures("little_memory")
def test_a_disk_that_does_not_take_them_is_told_and_they_stay_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "spool").write_text("a file where the folder should be")
    require_all(filled(ValidationStore(spool_dir=tmp_path / "spool")).joined())
    assert len(caplog.records) == 1
    assert "stay in memory" in caplog.text
