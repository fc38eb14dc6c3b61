"""Live sources as they are named on a command line."""

from pathlib import Path

import pytest

from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSimulatorSettings
from ptychoflow.acquisition.detectors.receiver_messages import ReceiverJob
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import Config, load_config, write_config
from ptychoflow.workflow.configuration.live_choice import live_options, simulator_settings

JOIN = [f"source.join.{key}=0" for key in ("first_frame", "first_sample")] + ["source.join.samples_per_frame=1"]


def test_sources_on_a_host_and_in_a_folder() -> None:
    assert live_options(None, None) == {}
    assert live_options("dectris-v2://10.0.0.5", "panda://[::1]:8000") == {
        "source": {
            "kind": "live",
            "frames": {"kind": "dectris-v2", "host": "10.0.0.5"},
            "positions": {"kind": "panda", "host": "::1", "port": 8000},
        }
    }
    for folder in ("/data/scans", "scans", "a folder/of #1?"):
        frames = live_options(f"hdf5-swmr://{folder}", None)["source"]["frames"]
        assert frames == {"kind": "hdf5-swmr", "folder": folder}
    assert live_options("hdf5-swmr", None)["source"]["frames"] == {"kind": "hdf5-swmr"}


def test_a_source_that_is_searched_for_is_searched_on_the_host() -> None:
    assert live_options("ntndarray://10.0.0.5", None)["source"]["frames"] == {
        "kind": "ntndarray",
        "servers": ["10.0.0.5"],
    }
    frames = live_options("ntndarray://ioc:5080", None)["source"]["frames"]
    assert frames == {"kind": "ntndarray", "servers": ["ioc:5080"]}
    assert simulator_settings("ntndarray://127.0.0.1:0", []).host == "127.0.0.1"


def test_a_simulator_writes_into_a_folder(tmp_path: Path) -> None:
    settings = simulator_settings(f"hdf5-swmr://{tmp_path}", ["simulator.frames_per_flush=8"])
    assert settings == Hdf5SwmrSimulatorSettings(folder=tmp_path, frames_per_flush=8)


@pytest.mark.parametrize(
    ("detector", "positions", "assignments"),
    [
        ("hdf5-swmr://d", None, ["frames=/f", "positions.path=/p"]),
        ("watched-folder://d", "position-sender", ["series=folder"]),
        (
            "ntndarray://ioc:5080",
            "position-sender",
            ["pv=I", "series.by=pause", "series.pause_s=2", "number_from=from_first"],
        ),
        (
            "bluesky-documents://host",
            None,
            [
                "frames=det",
                "folder=/d",
                "folder_there=/e",
                "field_y=y",
                "field_x=x",
                "curve_secret=a",
                "curve_server=b",
            ],
        ),
    ],
)
def test_sources_are_the_same_in_a_run_that_is_resumed_and_in_the_receiver(
    detector: str, positions: str | None, assignments: list[str], tmp_path: Path
) -> None:
    given = [*JOIN, *(f"source.frames.{one}" for one in assignments)]
    config = load_config(None, None, given, options=live_options(detector, positions))
    assert isinstance(config, Config)
    write_config(config, tmp_path / "config.toml")
    assert load_config(None, tmp_path / "config.toml", []) == config
    assert isinstance(config.source, LiveSettings)
    assert ReceiverJob.of(config.source, tmp_path).source_settings() == config.source.sources


@pytest.mark.parametrize("text", ["", "://host", "dectris-v2://host/path", "dectris-v2://host:port", "/data/scans"])
def test_what_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="KIND"):
        live_options(text, None)


def test_a_password_for_a_source_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="takes neither user nor password") as refused:
        live_options("dectris-v2://user:hunter2@10.0.0.5", None)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("detector", "positions", "assignments", "said"),
    [
        ("hdf5-swmr://a", None, [], "setting source.frames .*dataset of frames"),
        ("hdf5-swmr://a", None, ["source.frames.positions.path=/p"], "frames.frames"),
        ("hdf5-swmr://a", None, ["source.frames.frames=/f"], "no positions are taken: .* .positions., or name"),
        (
            "bluesky-documents://a",
            None,
            ["source.frames.frames=d", "source.frames.folder=/d"],
            "no positions are taken: .* .field_y and field_x.",
        ),
        ("dectris-v1://a", None, [], "this detector sends no positions: name their source with --positions"),
        ("dectris-v2://a", None, [], "this detector sends no positions: name their source with --positions"),
        ("watched-folder://a", None, ["source.frames.series=file"], "this detector sends no positions"),
        ("dectris-v2://a", "hdf5-swmr://b", ["source.positions.frames=/f"], "say in .positions. where"),
        (
            "hdf5-swmr://a",
            "panda://b",
            ["source.frames.frames=/f", "source.frames.positions.path=/p", "source.positions.stale_first_sample=false"]
            + [f"source.positions.field_{axis}={axis}" for axis in "yx"],
            "positions come with the frames already",
        ),
    ],
)
def test_frames_and_positions_have_one_source_each(
    detector: str, positions: str | None, assignments: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_config(None, None, [*JOIN, *assignments], options=live_options(detector, positions))
