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

SIMULATION = ("source.kind=simulation", "source.perspectives=2")


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


def test_a_missing_library_is_told_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = libraries.find_spec

    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == "p4p" else found(name)

    monkeypatch.setattr(libraries, "find_spec", find_spec)
    said = refusal(tmp_path, "outputs.ntndarray.prefix=PTYCHO:")
    assert said == "p4p, which this needs, is not installed: pip install 'ptychoflow[epics]'"


@pytest.mark.parametrize("section", ["ntndarray.prefix=X: outputs.ntndarray.port", "bluesky.port"])
def test_a_port_in_use_is_told(tmp_path: Path, section: str) -> None:
    pytest.importorskip("p4p", reason="p4p is not installed: pip install 'ptychoflow[epics]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(tmp_path, *f"outputs.{section}={port}".split())
    assert said.startswith(f"port {port} is in use on 127.0.0.1")
