"""How many frames go together."""

from __future__ import annotations

import pytest

from ptychoflow.acquisition.settings import PublishingSettings


@pytest.mark.parametrize(
    ("side_px", "rate_hz", "frames"),
    [
        (64, None, 64),
        (128, None, 64),
        (256, None, 16),
        (512, None, 4),
        (4096, None, 1),
        (128, 40.0, 16),
        (128, 1000.0, 50),
        (128, 20_000.0, 64),
        (512, 20_000.0, 4),
    ],
)
def test_messages_are_sized_by_bytes_and_a_slow_source_fills_them_soon(
    side_px: int, rate_hz: float | None, frames: int
) -> None:
    assert PublishingSettings(rate_hz=rate_hz).frames_per_message(2 * side_px**2) == frames
    assert PublishingSettings(rate_hz=rate_hz, batch_frames=5).frames_per_message(2 * side_px**2) == 5
