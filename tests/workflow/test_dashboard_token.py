"""The token of a run's page: handed over in silence, or made and shown once, by a page that is there."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support import free_network

from ptychoflow.workflow.configuration.config import load_config, write_config
from ptychoflow.workflow.launching.dashboard_token import TOKEN_VARIABLE, show_token, take_token
from ptychoflow.workflow.logs import stderr_console


@pytest.fixture(autouse=True)
def _fresh_console() -> None:
    stderr_console.cache_clear()


def test_what_the_launcher_hands_over_is_neither_shown_nor_left_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "given")
    assert take_token() == "given"
    assert TOKEN_VARIABLE not in os.environ
    assert take_token() is None
    assert capsys.readouterr() == ("", "")


def test_the_page_and_its_token_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_token("secret", "http://[::1]:9000/")
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["live page: http://[::1]:9000/", "token for the controls of the page: secret"]


def dashboard_command(folder: Path, port: int) -> list[str]:
    config = load_config("simulated", assignments=[f"run.directory={folder}", "run.name=run", f"dashboard.port={port}"])
    write_config(config.model_copy(update={"network": free_network()}), folder / "config.toml")
    return [sys.executable, "-m", "ptychoflow", "dashboard", "--config", str(folder / "config.toml")]


def test_a_page_that_finds_its_port_taken_shows_neither(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = dashboard_command(tmp_path, taken.getsockname()[1])
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2
    assert "in use" in answer.stderr
    assert "live page" not in answer.stderr
    assert "token for" not in answer.stderr


def test_a_page_on_a_free_port_shows_where_it_is(tmp_path: Path) -> None:
    command = dashboard_command(tmp_path, 0)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = next(match for line in process.stderr if (match := re.match("live page: (.*)", line)))
            assert httpx.get(f"{found[1]}api/state").status_code == 200
        finally:
            process.terminate()
            process.stderr.read()
    assert process.returncode == 0
