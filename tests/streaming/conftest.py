"""What tests of streams share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from streams import MakePublisher

from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings


@pytest.fixture
def publisher_of(network: NetworkSettings, tmp_path: Path) -> Iterator[MakePublisher]:
    opened: list[Publisher] = []

    def make(memory_bytes: int = 1 << 30, **options: bool) -> Publisher:
        opened.append(Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=memory_bytes, **options))
        return opened[-1]

    yield make
    for publisher in opened:
        publisher.close()
