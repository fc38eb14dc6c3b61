"""`ptychoflow inspect` and the source that the paths of a command line stand for."""

import h5py
import numpy as np
import pytest

from ptychoflow.acquisition.source_settings import ReplaySettings, ShippedMap
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.configuration.config import load_scan_config, write_config
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.configuration.source_choice import source_options
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS


def test_a_file_of_unknown_layout_is_listed_with_a_draft(tmp_path, capfd):
    path = tmp_path / "strange.h5"
    with h5py.File(path, "w") as file:
        file["a/stack"] = np.ones((6, 16, 24), np.uint16)
        file["a/xy"] = np.zeros((6, 2))
    assert run_command_line(["inspect", str(path)]) == USER_ERROR_STATUS
    printed = capfd.readouterr()
    assert "Datasets with frames may be: /a/stack" in printed.err
    for words in ("/a/stack", "6 × 16 × 24", "[frames]", 'path = "/a/stack"', 'path = "/a/xy"', "FILL IN"):
        assert words in printed.out


def test_what_a_file_may_hold_is_told_whole_on_a_narrow_terminal(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "lab.h5"
    with h5py.File(path, "w") as file:
        file["measurement/instrument/detector/collection/data"] = np.ones((40, 64, 64), np.uint16)
        for axis in "yx":
            name = f"measurement/motors/sample_fine_{axis}"
            file[name] = np.linspace(-12.3456, 65.4321, 40)
            file[name].attrs["units"] = "micrometre"
    assert run_command_line(["inspect", str(path)]) == USER_ERROR_STATUS
    lines = capfd.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("│")]
    assert max(map(len, table)) <= 80
    columns = ["".join(cells) for cells in zip(*(map(str.strip, line.split("│")[1:-1]) for line in table), strict=True)]
    assert len(columns) == 6
    for text, column in (("collection/data", 1), ("micrometre", 4), ("65.4321", 5)):
        assert text in columns[column]


def test_paths_stand_for_a_scan_or_for_labelled_images(tmp_path):
    scan, images, frames = (tmp_path / name for name in ("scan.h5", "images", "frames"))
    (images / "train").mkdir(parents=True)
    frames.mkdir()
    (frames / "one.tif").touch()
    scan.touch()
    assert source_options([scan], None, None) == {"source": {"kind": "replay", "path": str(scan)}}
    assert source_options([scan, scan], None, None)["source"]["path"] == [str(scan), str(scan)]
    assert source_options([images], None, None) == {"source": {"kind": "images", "folder": str(images)}}
    assert source_options([frames], None, None)["source"]["kind"] == "replay"
    assert source_options([frames], None, PipelineName.CLASSIFICATION)["source"]["kind"] == "images"
    assert source_options([], None, None) == {}


@pytest.mark.parametrize(
    "command", [["run", "absent"], ["run", "absent", "--preset", "classification"], ["inspect", "absent"]], ids=" ".join
)
def test_what_is_not_there_is_all_that_is_said(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_command_line(command) == USER_ERROR_STATUS
    assert capfd.readouterr().err == "ptychoflow: absent: there is no such file or folder; check the path\n"


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_the_folder_of_a_run_is_no_scan(command, tmp_path, capfd):
    for name in ("config.toml", "telemetry.jsonl", "probe.npy"):
        (tmp_path / name).touch()
    assert run_command_line([command, str(tmp_path)]) == USER_ERROR_STATUS
    said = capfd.readouterr().err
    assert said.startswith(f"ptychoflow: {tmp_path}: this is the folder of a run: name its recording.h5")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", list(ShippedMap))
def test_a_map_is_a_shipped_name_or_a_file(name, tmp_path):
    scan = tmp_path / "scan.h5"
    scan.touch()
    for value, expected in ((name.value, name), ("mine.toml", "mine.toml")):
        config = load_scan_config(options=source_options([scan], value, PipelineName.PTYCHOGRAPHY))
        assert isinstance(config.source, ReplaySettings)
        assert str(config.source.dataset_map) == expected
        assert isinstance(config.source.dataset_map, ShippedMap) == (value == name.value)


def test_a_run_of_several_files_with_a_map_is_kept_as_it_was(tmp_path):
    """The parts of a run read the configuration that it wrote."""
    assignments = ["source.map_values.positions.column_y=2", "source.drop_frames=[1, [3, 5]]", "source.probe=ignore"]
    paths = (tmp_path / "a.h5", tmp_path / "b.h5")
    for path in paths:
        path.touch()
    options = source_options(paths, "velociprobe", None)
    config = load_scan_config(assignments=assignments, options=options)
    write_config(config, tmp_path / "config.toml")
    again = load_scan_config(file=tmp_path / "config.toml")
    assert again.source == config.source
    assert isinstance(again.source, ReplaySettings)
    assert again.source.paths == paths
    assert again.source.drop_frames == (1, (3, 5))
