"""Commands, options and configuration keys under their names of the last release."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow import former_names
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.former_names import with_present_keys, with_present_names


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


KEYS = {"trainer.batch": "trainer.batch_size", "store": "trainer.buffer", "edge.old.deep": "run.seed"}


@pytest.fixture
def untold() -> None:
    """What was told in another test is told again."""
    former_names._tell_key.cache_clear()


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize(
    ("former", "present", "told"),
    [
        ({"trainer": {"batch": 3}}, {"trainer": {"batch_size": 3}}, "trainer.batch (from my.toml) is called trainer.b"),
        ({"store": {"capacity": 1}}, {"trainer": {"buffer": {"capacity": 1}}}, "called trainer.buffer"),
        ({"edge": {"old": {"deep": 7}}}, {"run": {"seed": 7}}, "is called run.seed now"),
        ({"trainer": {"batch_size": 3}}, {"trainer": {"batch_size": 3}}, ""),
        ({"trainer": 3, "edge": {"old": [1]}}, {"trainer": 3, "edge": {"old": [1]}}, ""),
    ],
)
def test_a_former_key_counts_as_the_present_one(
    caplog: pytest.LogCaptureFixture, former: dict[str, Any], present: dict[str, Any], told: str
) -> None:
    for _ in range(2):
        assert with_present_keys(former, origin="my.toml", keys=KEYS) == present
    assert (told in caplog.text) if told else not caplog.text
    assert len(caplog.records) == bool(told), "told once"


def test_a_key_under_both_names_is_refused() -> None:
    both = {"trainer": {"batch": 3, "batch_size": 4}}
    with pytest.raises(UserError, match=r"trainer\.batch \(from --set\) is called trainer\.batch_size now, which"):
        with_present_keys(both, origin="--set", keys=KEYS)


@pytest.mark.usefixtures("untold")
def test_every_layer_of_a_configuration_may_have_former_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(former_names.KEYS, "trainer.batch", "trainer.batch_size")
    (tmp_path / "mine.toml").write_text("[trainer]\nbatch = 3\n")
    assert load_config("simulated", tmp_path / "mine.toml").trainer.batch_size == 3
    assert load_config("simulated", tmp_path / "mine.toml", ["trainer.batch=4"]).trainer.batch_size == 4
    assert f"trainer.batch (from {tmp_path / 'mine.toml'})" in caplog.text
    assert "trainer.batch (from --set)" in caplog.text
