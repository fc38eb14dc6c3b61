"""Commands from HTTP to the run: only with the token, and only when somebody takes them in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from odd_requests import OddRequests
from support import wait_until
from test_dashboard_app import NOWHERE

from ptychoflow.dashboard.app import CommandAccess, create_app
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.dashboard.token import make_token
from ptychoflow.streaming import seldom
from ptychoflow.streaming.commands import (
    AnyCommand,
    CommandHub,
    CommandSender,
    FollowWeights,
    Pause,
    Resume,
    RollBackWeights,
    SetRegime,
    StopRun,
    WriteCheckpoint,
)
from ptychoflow.streaming.events import Regime
from ptychoflow.streaming.settings import NetworkSettings

TOKEN = make_token()
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(network: NetworkSettings) -> Iterator[TestClient]:
    settings = DashboardSettings()
    runs = Runs(DashboardState("night", settings, controllable=True), NOWHERE, settings)
    with closing(CommandSender(network)) as sender:
        app = create_app(runs, settings, commands=CommandAccess(sender, TOKEN))
        yield TestClient(app, base_url="http://127.0.0.1:8421")


def test_every_command_reaches_the_run(client: TestClient, network: NetworkSettings) -> None:
    heard: list[AnyCommand] = []
    expected = {
        "pause": Pause(),
        "resume": Resume(),
        "set_regime?regime=monitoring": SetRegime(Regime.MONITORING),
        "roll_back_weights?version=4": RollBackWeights(4),
        "follow_scores": SetRegime(None),
        "follow_weights": FollowWeights(),
        "write_checkpoint": WriteCheckpoint(),
        "stop_run": StopRun(),
    }
    with closing(CommandHub(network, on_command=heard.append)):
        for path, command in expected.items():
            answer = client.post(f"/api/commands/{path}", headers=BEARER)
            assert (answer.status_code, answer.json()) == (202, {"command": path.partition("?")[0]})
            wait_until(lambda command=command: heard[-1:] == [command])
    assert heard == list(expected.values())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_without_the_token_nothing_reaches_the_run(
    client: TestClient,
    network: NetworkSettings,
    headers: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[AnyCommand] = []
    monkeypatch.setattr(seldom, "PERIOD_S", 0.0)
    with closing(CommandHub(network, on_command=heard.append)), caplog.at_level(logging.WARNING):
        answers = [client.get("/api/commands", headers=headers)]
        answers += [client.post(f"/api/commands/{name}", headers=headers) for name in ("pause", "stop_run", "nonsense")]
        answers += [client.post(f"/api/commands/stop_run?token={TOKEN}", headers=headers)]
    assert {answer.status_code for answer in answers} == {401}
    assert all(answer.headers["WWW-Authenticate"] == "Bearer" for answer in answers)
    assert heard == []
    assert "refused /api/commands/stop_run from testclient" in caplog.text
    assert TOKEN not in caplog.text


def test_with_the_token_from_a_foreign_origin_nothing_reaches_the_run(client: TestClient) -> None:
    answer = client.post("/api/commands/stop_run", headers={**BEARER, "Origin": "http://evil.example"})
    assert answer.status_code == 403


def test_a_run_that_is_gone_is_said_to_be(client: TestClient) -> None:
    answer = client.post("/api/commands/pause", headers=BEARER)
    assert (answer.status_code, "launcher has ended" in answer.json()["detail"]) == (503, True)


def test_wrong_arguments_are_refused(client: TestClient) -> None:
    for path in ("set_regime", "set_regime?regime=sleeping", "roll_back_weights?version=-1", "explode"):
        assert client.post(f"/api/commands/{path}", headers=BEARER).status_code == 422


def test_the_interface_says_what_needs_the_token(client: TestClient) -> None:
    description = client.get("/api/openapi.json").json()
    assert description["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    guarded = {
        path for path, methods in description["paths"].items() if any(m.get("security") for m in methods.values())
    }
    assert guarded == {path for path in description["paths"] if path.startswith("/api/commands")}


def test_the_interface_says_how_requests_are_refused(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for described in methods.values():
            assert {"400", "403"} <= described["responses"].keys()
            assert ({"401", "503"} <= described["responses"].keys()) == path.startswith("/api/commands")
            assert ({"404", "409"} <= described["responses"].keys()) == (
                path == "/api/state" or path.startswith(("/api/mosaics", "/api/positions", "/api/frame", "/api/colour"))
            )


def test_every_answer_to_an_odd_request_is_described_and_none_is_a_failure(client: TestClient) -> None:
    assert list(OddRequests(client, seed=20).faults(150)) == []


def test_tokens_are_long_and_new_each_time() -> None:
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 24 for token in tokens)
