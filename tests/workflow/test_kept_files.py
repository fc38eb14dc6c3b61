"""Files that are read back, damaged: each is read, or told of in one line; `mutated_kept_files.py` takes thousands."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from mutated_kept_files import KEPT, Campaign

from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.readers.map_files import load_dataset_map
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.kept_perspective import read_kept
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.report import write_report

EACH = 6


def test_whatever_is_damaged_is_read_or_told_of_in_one_line(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, seed=20)
    outcomes = [campaign.damage(number) for number in range(EACH * len(KEPT))]
    assert [fault for _, fault in outcomes if fault is not None] == []
    assert {what for what, _ in outcomes} == {"read", "told"}


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_not_damaged_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    assert KEPT[kind].write(tmp_path / "run")
    KEPT[kind].read(tmp_path / "run")


def test_damaged_ground_truth_names_its_file_and_what_to_do(tmp_path: Path) -> None:
    KEPT["outcomes"].write(tmp_path)
    void = tmp_path / "0000" / "void.npy"
    void.write_bytes(void.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"void.npy is damaged: .*; remove its folder"):
        Journal(tmp_path, scan="a scan").result(0)
    np.save(void, np.zeros(7, bool))
    with pytest.raises(UserError, match="its arrays do not fit together; remove its folder"):
        Journal(tmp_path, scan="a scan").result(0)


def test_a_kept_perspective_whose_places_are_not_in_its_file_is_damaged(tmp_path: Path) -> None:
    KEPT["kept perspectives"].write(tmp_path)
    folder = tmp_path / "kept" / "0000"
    np.save(folder / "places.npy", np.array([0, 1, 3]))
    with pytest.raises(UserError, match="does not fit together"):
        read_kept(folder)
    np.save(folder / "places.npy", np.arange(3))
    about = msgspec.json.decode((folder / "about.json").read_bytes())
    (folder / "about.json").write_bytes(msgspec.json.encode(about | {"stored_shape": [2**62, 2**62, 2**62]}))
    with pytest.raises(UserError, match="does not fit together"):
        read_kept(folder)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "1e99999", "-1", "nan", "9" * 400])
def test_huge_numbers_in_what_people_write_are_told(tmp_path: Path, value: str) -> None:
    (tmp_path / "my.toml").write_text(f'[source]\nkind = "simulation"\nperspectives = {value}\n')
    with pytest.raises(UserError, match=r"my\.toml"):
        load_config(file=tmp_path / "my.toml")
    with pytest.raises(UserError, match=r"source\.perspectives"):
        load_config("simulated", assignments=[f"source.perspectives={value}"])
    (tmp_path / "map.toml").write_text(f"[frames]\npath = {value}\n")
    with pytest.raises(UserError, match=r"map\.toml"):
        load_dataset_map(tmp_path / "map.toml")


def test_a_summary_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    KEPT["run"].write(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.summary.write_text(json.dumps(json.loads(folder.summary.read_text()) | {"frames": 7}))
    with pytest.raises(UserError, match=r"summary.json is damaged, or was written by another version"):
        write_report(folder)
