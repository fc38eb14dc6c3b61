"""Outputs that cannot work are refused in one line before a run starts."""

from __future__ import annotations

import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ptychoflow.streaming import libraries
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import load_config, load_scan_config, write_config
from ptychoflow.workflow.launching.launcher import launch

SIMULATION = ("source.kind=simulation", "source.perspectives=2", "dashboard.port=0")


def refusal(folder: Path, *assignments: str) -> str:
    with pytest.raises(UserError) as error:
        launch(load_config(assignments=(*SIMULATION, *assignments, f"run.directory={folder / 'runs'}")))
    assert not (folder / "runs").exists()
    return str(error.value)


def test_one_setting_switches_an_output_on_and_the_resolved_configuration_keeps_it(tmp_path: Path) -> None:
    assert load_scan_config(assignments=SIMULATION).outputs.chosen == []
    config = load_scan_config(
        assignments=(*SIMULATION, "outputs.ntndarray.prefix=PTYCHO:", "outputs.bluesky.port=5578")
    )
    assert config.outputs.chosen == ["ntndarray", "bluesky"]
    write_config(config, tmp_path / "config.toml")
    assert load_scan_config(file=tmp_path / "config.toml").outputs == config.outputs


def test_a_mistyped_key_is_told_the_nearest_one() -> None:
    with pytest.raises(
        UserError, match=r"unknown setting outputs\.bluesky\.prot .*did you mean outputs\.bluesky\.port"
    ):
        load_config(assignments=(*SIMULATION, "outputs.bluesky.prot=1"))


@pytest.mark.parametrize(
    ("missing", "extra", "setting"),
    [("p4p", "epics", "ntndarray.prefix=PTYCHO:"), ("httpx", "tiled", "tiled.url=http://127.0.0.1:8000")],
)
def test_a_missing_library_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str, setting: str
) -> None:
    found = libraries.find_spec

    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == missing else found(name)

    monkeypatch.setattr(libraries, "find_spec", find_spec)
    said = refusal(tmp_path, f"outputs.{setting}")
    assert said == f"{missing}, which this needs, is not installed: pip install 'ptychoflow[{extra}]'"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/api/v1?api_key=hunter2",
        "https://user:hunter2@tiled.example",
        "https://user:hunter2@tiled.example/api@v1",
        "https://hunter2@tiled.example",
    ],
)
def test_a_secret_in_the_address_of_a_tiled_server_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    said = ""
    with pytest.raises(UserError, match=r"setting outputs\.tiled\.url .*TILED_API_KEY") as refused:
        load_config(assignments=(*SIMULATION, f"outputs.tiled.url={url}"))
    said += str(refused.value)
    file = tmp_path / "mine.toml"
    file.write_text(f'[source]\nkind = "simulation"\n[outputs.tiled]\nurl = "{url}"\n')
    with pytest.raises(UserError, match=r"outputs\.tiled\.url") as refused:
        load_config(file=file)
    said += str(refused.value)
    assert "hunter2" not in said


def test_an_address_of_a_tiled_server_may_have_a_path() -> None:
    config = load_scan_config(assignments=(*SIMULATION, "outputs.tiled.url=https://tiled.example:8000/at@home/v1"))
    assert config.outputs.tiled is not None
    assert config.outputs.tiled.url == "https://tiled.example:8000/at@home/v1"


@pytest.mark.parametrize("section", ["ntndarray.prefix=X: outputs.ntndarray.port", "bluesky.port"])
def test_a_port_in_use_is_told(tmp_path: Path, section: str) -> None:
    pytest.importorskip("p4p", reason="p4p is not installed: pip install 'ptychoflow[epics]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(tmp_path, *f"outputs.{section}={port}".split())
    assert said.startswith(f"port {port} is in use on 127.0.0.1")
