"""What `offer` copies at once and what its offer must wait for."""

from __future__ import annotations

import pytest
import torch

from ptychoflow.buffer.candidate_writer import arrives_later


@pytest.mark.parametrize(
    ("where", "own", "later"),
    [
        ("cpu", "cpu", False),
        ("cpu", "cuda:0", False),
        ("cuda:0", "cuda:0", True),
        ("cuda:0", "cpu", False),
        ("cuda:1", "cuda:0", False),
        ("mps", "cpu", False),
        ("xpu:0", "cuda:0", False),
    ],
)
def test_only_what_lies_on_the_buffers_own_gpu_is_waited_for_later(where: str, own: str, later: bool) -> None:
    """An event on one GPU's stream tells nothing of another's, and a buffer on the host has no event at all."""
    assert arrives_later(torch.device(where), own=torch.device(own)) is later
