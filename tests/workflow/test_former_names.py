"""Commands and options under their names of the last release."""

from __future__ import annotations

import logging

import pytest

from ptychoflow.workflow.former_names import with_present_names


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("experiment imagenet images --resume", "experiment classification images --resume"),
        ("bench images", "bench classification"),
        ("run images --pipeline imagenet", "run images --pipeline classification"),
        ("run images --preset=images", "run images --preset=classification"),
    ],
)
def test_a_former_name_is_understood_and_told(caplog: pytest.LogCaptureFixture, former: str, present: str) -> None:
    with caplog.at_level(logging.WARNING):
        assert with_present_names(former.split()) == present.split()
    assert "is called 'classification' now" in caplog.text


@pytest.mark.parametrize("line", ["run images", "experiment ptychography imagenet", "run imagenet --preset demo", ""])
def test_a_name_that_only_looks_like_one_is_left_alone(caplog: pytest.LogCaptureFixture, line: str) -> None:
    with caplog.at_level(logging.WARNING):
        assert with_present_names(line.split()) == line.split()
    assert not caplog.text
