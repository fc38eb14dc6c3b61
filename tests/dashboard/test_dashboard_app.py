import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from speaking import telemetry
from starlette.websockets import WebSocketDisconnect
from telemetry_samples import acquired, mosaic, ramp, step

from ptychoflow.dashboard.app import STATIC, create_app
from ptychoflow.dashboard.models import StateUpdate
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

OWN = {"Host": "127.0.0.1:8421"}
NOWHERE = RunFolder(Path("/nonexistent/runs/night"))
PHASE_PNG = "/api/mosaics/0/refreshed/phase.png"


@pytest.fixture
def state() -> DashboardState:
    return DashboardState("night", DashboardSettings())


@pytest.fixture
def client(state):
    return client_for(state)


def client_for(state: DashboardState, **settings) -> TestClient:
    options = DashboardSettings(**settings)
    return TestClient(create_app(Runs(state, NOWHERE, options), options), base_url="http://127.0.0.1:8421")


def put(state: DashboardState, kind: MosaicKind, phase: np.ndarray, perspective: int = 0) -> None:
    event, arrays = mosaic(perspective, kind, phase + 1, phase)
    state.apply(telemetry(event), arrays)


def test_health_and_state(client, state):
    state.apply(telemetry(acquired(100)))
    assert client.get("/healthz").json() == {"status": "ok", "run": "night", "events": 1}
    content = StateUpdate.model_validate(client.get("/api/state").json())
    assert (content.present.frames.acquired, content.present.frames.lost) == (100, 80)


def test_interface_describes_the_state(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    answer = paths["/api/state"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/StateUpdate"}
    assert all(set(methods) == {"get"} for methods in paths.values()), "read-only"


def test_picture_shows_the_values_in_the_colours_asked_for(client, state):
    phase = ramp(6, 8)
    phase[0, 0] = np.nan
    put(state, MosaicKind.REFRESHED, phase)
    answer = client.get(PHASE_PNG, params={"colour_map": "magma", "lower": 0, "upper": 50})
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))
    expected = matplotlib.colormaps["magma"](np.floor(np.nan_to_num(phase) / 50 * 255) / 254, bytes=True)
    np.testing.assert_array_equal(pixels[1:], expected[1:])
    assert (pixels[0, 0, 3], pixels[0, 1, 3]) == (0, 255)
    assert (answer.headers["X-Lower"], answer.headers["X-Upper"]) == ("0", "50")


def test_picture_is_fetched_again_only_when_it_changed(client, state):
    put(state, MosaicKind.REFRESHED, ramp())
    etag = client.get(PHASE_PNG).headers["ETag"]
    unchanged = client.get(PHASE_PNG, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get(PHASE_PNG, params={"colour_map": "gray"}, headers={"If-None-Match": etag}).status_code == 200
    put(state, MosaicKind.REFRESHED, ramp() * 2)
    assert client.get(PHASE_PNG, headers={"If-None-Match": etag}).status_code == 200


def test_a_phase_that_wraps_gets_cyclic_colours(client, state):
    put(state, MosaicKind.REFRESHED, ramp() / 48 * 6.28 - 3.14)
    headers = client.get(PHASE_PNG).headers
    assert headers["X-Colour-Map"] == "twilight"
    assert float(headers["X-Lower"]) == -float(headers["X-Upper"]) == pytest.approx(-np.pi)
    put(state, MosaicKind.REFRESHED, ramp() / 48)
    assert client.get(PHASE_PNG).headers["X-Colour-Map"] == "viridis"


def test_values_for_notebooks_are_exact(client, state):
    phase = ramp() / 7
    phase[2, 3] = np.nan
    put(state, MosaicKind.FIRST_PASS, phase)
    answer = client.get("/api/mosaics/0/first_pass/amplitude.npy")
    values = np.load(io.BytesIO(answer.content))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (phase + 1).astype(np.float32))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/mosaics/9/refreshed/phase.png", 404),
        ("/api/mosaics/0/difference_refreshed/phase.png", 404),
        ("/api/mosaics/9/refreshed/phase.npy", 404),
        ("/api/mosaics/0/refreshed/depth.png", 422),
        ("/api/mosaics/0/sideways/phase.png", 422),
        (f"{PHASE_PNG}?colour_map=jet", 422),
        (f"{PHASE_PNG}?lower=2&upper=1", 422),
        (f"{PHASE_PNG}?lower=nan", 422),
        ("/static/../app.py", 404),
        ("/docs", 404),
    ],
)
def test_what_is_not_there_is_refused(client, state, path, status):
    put(state, MosaicKind.REFRESHED, ramp())
    assert client.get(path).status_code == status


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ({}, (1.0, 41.0)),
        ({"lower": 10}, (10.0, 41.0)),
        ({"upper": 10}, (1.0, 10.0)),
        ({"upper": -5}, (-45.0, -5.0)),
        ({"lower": 50}, (50.0, 90.0)),
    ],
)
def test_a_limit_that_was_not_chosen_gives_way_to_one_that_was(client, state, asked, used):
    phase = np.where(np.arange(10_000).reshape(100, 100) % 2, 40.0, 0.0)
    put(state, MosaicKind.REFRESHED, phase)
    answer = client.get("/api/mosaics/0/refreshed/amplitude.png", params=asked)
    limits = [float(answer.headers[name]) for name in ("X-Lower", "X-Upper")]
    assert tuple(limits) == used


def test_a_browser_asks_for_every_file_of_the_page_anew(client):
    for path in ("/", "/static/app.js", "/static/style.css"):
        answer = client.get(path)
        assert answer.headers["Cache-Control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.headers["Cache-Control"] == "no-cache"
    assert again.status_code == 304


def test_nothing_can_be_changed(client):
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)("/api/state").status_code == 405


def test_every_answer_carries_the_security_headers(client):
    for path in ("/", "/healthz", "/static/app.js", "/nowhere"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")


def test_foreign_host_names_and_origins_are_refused(client):
    assert client.get("/api/state", headers={"Host": "evil.example:8421"}).status_code == 403
    assert client.get("/api/state", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/api/state", headers={"Origin": "http://127.0.0.1:8421"}).status_code == 200
    assert client.get("/api/state", headers={"Host": "localhost:9000"}).status_code == 200


@pytest.mark.parametrize("name", ["[", "[::1", "]", "[x]", "a[b]", "[127.0.0.1]:8421"])
def test_a_malformed_host_name_or_origin_is_a_bad_request(client, state, name):
    for one in (client, client_for(state, host="0.0.0.0")):
        assert one.get("/api/state", headers={"Host": name}).status_code == 400
        assert one.get("/api/state", headers={"Origin": f"http://{name}"}).status_code == 400
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws", headers={"Host": name}):
        pass
    assert refused.value.code == 1008


def test_a_proxy_can_be_allowed_and_other_hosts_open_all_names(state):
    proxy = {"Host": "beamline.example"}
    assert client_for(state, allowed_hosts=["beamline.example"]).get("/healthz", headers=proxy).status_code == 200
    assert client_for(state, host="0.0.0.0").get("/healthz", headers=proxy).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "null"])
def test_websockets_of_other_sites_are_refused(client, origin):
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws", headers={"Origin": origin}):
        pass
    assert refused.value.code == 1008


def test_a_websocket_gets_everything_first_and_then_what_is_new(client, state):
    state.apply(telemetry(step(1, loss=0.9)))
    with client.websocket_connect(
        "/ws", headers={"Origin": "http://127.0.0.1:8421", "Host": "127.0.0.1:8421"}
    ) as viewer:
        first = StateUpdate.model_validate(viewer.receive_json())
        assert first.series["training"].columns["loss"] == [0.9]
        viewer.send_text("what a viewer says is dropped")
        viewer.send_bytes(b"whatever it is")
        state.apply(telemetry(step(2, loss=0.7)))
        second = StateUpdate.model_validate(viewer.receive_json())
        assert (second.series["training"].start, second.series["training"].columns["loss"]) == (1, [0.7])


def test_too_many_viewers_are_turned_away(state):
    client = client_for(state, max_viewers=1)
    with client.websocket_connect("/ws", headers=OWN) as viewer:
        viewer.receive_json()
        with client.websocket_connect("/ws", headers=OWN) as second, pytest.raises(WebSocketDisconnect) as refused:
            second.receive_json()
        assert refused.value.code == 1013
    with client.websocket_connect("/ws", headers=OWN) as viewer:
        viewer.receive_json()


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/").text
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        # under a proxy's path, what begins with a slash is elsewhere too
        assert not re.match("/|[a-z]+:", path), path
        if not path.startswith("#"):
            assert client.get(f"/{path}").status_code == 200, path
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import|url\(", text), file.name
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert client.get(f"/static/{module}").status_code == 200, module


def test_the_page_never_sets_markup_from_the_run():
    for file in STATIC.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", file.read_text()), (
            file.name
        )


def test_plotly_is_served_from_the_installed_package(client):
    answer = client.get("/plotly.min.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "plotly.js" in answer.text[:300]
    assert len(answer.content) > 1_000_000
