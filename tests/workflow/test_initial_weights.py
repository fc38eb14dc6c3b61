"""Where a run finds the weights that it starts from."""

from pathlib import Path

import pytest

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.launching.initial_weights import find_weights, with_found_weights


def test_a_run_folder_stands_for_its_newest_weights(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for version in (1, 2, 10):
        (tmp_path / "weights" / f"v{version:06d}.safetensors").touch()
    config = with_found_weights(load_config("simulated", assignments=[f"trainer.init_weights={tmp_path}"]))
    assert config.trainer.init_weights == tmp_path / "weights" / "v000010.safetensors"


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.touch()
    assert find_weights(file) == file


def test_a_run_without_initial_weights_is_left_alone() -> None:
    config = load_config("simulated")
    assert with_found_weights(config) is config


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        find_weights(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="published none"):
        find_weights(tmp_path)
