"""The token of a run's page: handed over in silence, or made and shown once."""

import os

import pytest

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.workflow.launching.dashboard_token import TOKEN_VARIABLE, take_token
from ptychoflow.workflow.logs import stderr_console

PAGE = DashboardSettings(host="::1", port=9000)


@pytest.fixture(autouse=True)
def _fresh_console() -> None:
    stderr_console.cache_clear()


def test_what_the_launcher_hands_over_is_neither_shown_nor_left_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "given")
    assert take_token(PAGE) == "given"
    assert TOKEN_VARIABLE not in os.environ
    assert capsys.readouterr() == ("", "")


def test_a_dashboard_started_alone_shows_a_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    token = take_token(PAGE)
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["live page: http://[::1]:9000/", f"token for the controls of the page: {token}"]
