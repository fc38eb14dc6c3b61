"""Fixtures of the tests of live sources."""

import pytest
from live_scans import Script


@pytest.fixture(params=[1, 60])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tests with messages that came one by one, and with many that came together."""
    monkeypatch.setattr(Script, "together", request.param)
