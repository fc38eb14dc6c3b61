"""All receivers beside each other, with good messages between malformed ones; `mutated_sockets.py` sends millions."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from mutated_sockets import Campaign


def test_every_receiver_outlives_what_nobody_can_read_and_counts_every_good_message(tmp_path: Path) -> None:
    with ExitStack() as stack:
        campaign = Campaign(tmp_path, 20, stack)
        for number in range(2):
            campaign.round(number, messages=1000, events=100, requests=20)
