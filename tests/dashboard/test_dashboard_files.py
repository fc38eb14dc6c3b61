"""Images as files, earlier perspectives and earlier runs, the probe and the newest frame."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import httpx
import matplotlib
import msgspec
import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from PIL import Image
from speaking import telemetry
from support import without_privileges
from telemetry_samples import acquired, mosaic, ramp, scores, step

from ptychoflow.dashboard.app import create_app
from ptychoflow.dashboard.runs import Runs, read_run
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.inference_edge.ptychography.archive import Archive, PerspectiveImages
from ptychoflow.inference_edge.ptychography.frame_residuals import ResidualMap
from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    FrameTaken,
    MosaicKind,
    PerspectiveStarted,
    PositionsTaken,
    ResidualMapped,
    ScanInfo,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.run_folder import RunFolder

PIXEL_SIZE_M = (9e-9, 8e-9)
POSITIONS_PX = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
PROBE = (np.arange(32).reshape(2, 4, 4) * (1 + 2j)).astype(np.complex64)


@pytest.fixture
def state() -> DashboardState:
    return DashboardState("night", DashboardSettings())


@pytest.fixture
def client(state: DashboardState, tmp_path: Path) -> TestClient:
    settings = DashboardSettings()
    (tmp_path / "night").mkdir()
    return TestClient(
        create_app(Runs(state, RunFolder(tmp_path / "night"), settings), settings), base_url="http://127.0.0.1:8421"
    )


def put(state: DashboardState, kind: MosaicKind, perspective: int, phase: np.ndarray) -> None:
    event, arrays = mosaic(perspective, kind, phase + 1, phase, origin_px=(-3.0, 4.0))
    state.apply(telemetry(event), arrays)


def write_images(folder: Path, perspective: int, phase: np.ndarray) -> None:
    """Write them as the edge does."""
    image = StitchedImage(phase + 1, phase, np.ones(phase.shape, np.int32), (2, 3))
    archive = Archive(RunFolder(folder))
    archive.write(
        PerspectiveImages(
            perspective=perspective,
            angle_deg=1.5,
            pixel_size_m=PIXEL_SIZE_M,
            min_coverage=1,
            images={MosaicKind.FIRST_PASS: image, MosaicKind.REFRESHED: image},
            model_versions={MosaicKind.FIRST_PASS: [1], MosaicKind.REFRESHED: [4, 5]},
            reference=ReferenceImage(phase + 2, phase / 2, (2.0, 3.0)),
            residuals={MosaicKind.REFRESHED: ResidualMap(phase[::2, ::2] / 1000, (2, 3), 2)},
        )
    )
    archive.close()


def test_the_newest_image_can_be_had_without_knowing_which_it_is(client: TestClient, state: DashboardState) -> None:
    put(state, MosaicKind.REFRESHED, 3, ramp())
    put(state, MosaicKind.FIRST_PASS, 4, ramp() * 2)
    for perspective, expected in (("newest", ramp() * 2), ("3", ramp())):
        answer = client.get(f"/api/mosaics/{perspective}/network/phase.npy")
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), expected)


def test_tiff_keeps_values_and_pixel_size(client: TestClient, state: DashboardState) -> None:
    phase = ramp() / 7
    phase[2, 3] = np.nan
    put(state, MosaicKind.REFRESHED, 0, phase)
    answer = client.get("/api/mosaics/0/refreshed/phase.tiff")
    assert 'filename="perspective_0000_refreshed_phase.ome.tiff"' in answer.headers["Content-Disposition"]
    with tifffile.TiffFile(io.BytesIO(answer.content)) as file:
        np.testing.assert_array_equal(file.asarray(), phase.astype(np.float32))
        assert 'PhysicalSizeY="9.0"' in (file.ome_metadata or "")
        assert 'PhysicalSizeX="8.0"' in (file.ome_metadata or "")


def test_hdf5_has_the_layout_of_a_ptychodus_product(client: TestClient, state: DashboardState) -> None:
    phase = ramp() / 50
    phase[0, 0] = np.nan
    scan = ScanInfo("a.cxi", 1, 2, (4, 4), (4, 4), PIXEL_SIZE_M, 8800.0, GroundTruthSource.PTYCHI, [])
    state.apply(telemetry(scan))
    start = {"positions_px": POSITIONS_PX, "probe": PROBE}
    state.apply(telemetry(PerspectiveStarted(0, 30.0)), start)
    put(state, MosaicKind.REFRESHED, 0, phase)
    with h5py.File(io.BytesIO(client.get("/api/mosaics/0/network.h5").content)) as product:
        assert (product.attrs["probe_energy_eV"], product.attrs["tomography_angle_deg"]) == (8800.0, 30.0)
        values = product["object"][0]
        assert values[0, 0] == 0
        np.testing.assert_allclose(np.abs(values[1:]), phase[1:] + 1, rtol=1e-6)
        np.testing.assert_allclose(np.angle(values[1:]), phase[1:], rtol=1e-5)
        centre = [product["object"].attrs[f"center_{axis}_m"] for axis in "yx"]
        np.testing.assert_allclose(centre, [(-3 + 2.5) * 9e-9, (4 + 3.5) * 8e-9])
        np.testing.assert_allclose(product["probe_position_y_m"], POSITIONS_PX[:, 0] * 9e-9)
        np.testing.assert_allclose(product["probe_position_x_m"], POSITIONS_PX[:, 1] * 8e-9)
        np.testing.assert_array_equal(product["probe"], PROBE[None])
        assert product["probe_position_indexes"][()].tolist() == [0, 1]


def positions_taken(state: DashboardState, indices: np.ndarray) -> None:
    """Tell of positions that lie where their frames' indices say."""
    positions_px = np.stack([indices, 2 * indices], axis=1).astype(np.float32)
    state.apply(telemetry(PositionsTaken(0)), {"indices": indices.astype(np.int32), "positions_px": positions_px})


@pytest.mark.parametrize("frames", [8, 50_000])
def test_positions_of_a_scan_with_gaps_stay_with_their_frames(
    client: TestClient, state: DashboardState, frames: int
) -> None:
    state.apply(telemetry(PerspectiveStarted(0, 0.0)), {"positions_px": np.zeros((0, 2), np.float32)})
    came = np.delete(np.arange(frames), [2, 3, 6])
    for part in np.array_split(came, 3):
        positions_taken(state, part)
    put(state, MosaicKind.REFRESHED, 0, ramp())
    with h5py.File(io.BytesIO(client.get("/api/mosaics/0/network.h5").content)) as product:
        indices = product["probe_position_indexes"][()]
        np.testing.assert_allclose(product["probe_position_y_m"], indices * 9e-9)
        np.testing.assert_allclose(product["probe_position_x_m"], 2 * indices * 8e-9)
    assert indices[0] == 0
    assert set(indices) <= set(came)
    assert len(indices) == len(came) if frames == 8 else 10_000 < len(indices) <= 20_000


def test_a_product_without_positions_says_so_by_having_none(client: TestClient, state: DashboardState) -> None:
    put(state, MosaicKind.REFERENCE, 0, ramp())
    with h5py.File(io.BytesIO(client.get("/api/mosaics/0/reference.h5").content)) as product:
        assert product["probe_position_indexes"].shape == (0,)
        assert product["probe"].shape == (1, 1, 1, 1)


def test_a_perspective_that_was_let_go_is_read_from_the_folder(
    client: TestClient, state: DashboardState, tmp_path: Path
) -> None:
    put(state, MosaicKind.FIRST_PASS, 9, ramp())
    write_images(tmp_path / "night", 2, ramp() / 9)
    rows = client.get("/api/mosaics/2").json()
    assert {row["kind"]: (row["model_version"], row["shape_px"]) for row in rows} == {
        "first_pass": (1, [6, 8]),
        "refreshed": (5, [6, 8]),
        "reference": (0, [6, 8]),
    }
    values = np.load(io.BytesIO(client.get("/api/mosaics/2/refreshed/phase.npy").content))
    np.testing.assert_array_equal(values, (ramp() / 9).astype(np.float32))
    assert client.get("/api/mosaics/2/difference_refreshed/amplitude.png").status_code == 200
    assert client.get("/api/mosaics/3").json() == []
    np.testing.assert_array_equal(
        np.load(io.BytesIO(client.get("/api/mosaics/newest/network/phase.npy").content)), ramp()
    )


def test_an_image_that_comes_late_hides_none_in_the_folder(
    client: TestClient, state: DashboardState, tmp_path: Path
) -> None:
    """As a page that was started again sees it: of what was before, the folder alone knows."""
    for perspective in (3, 5):
        write_images(tmp_path / "night", perspective, ramp() / 9)
    put(state, MosaicKind.REFERENCE, 3, ramp() / 2)
    kinds = [row["kind"] for row in client.get("/api/mosaics/3").json()]
    assert sorted(kinds) == ["first_pass", "reference", "refreshed"]
    for kind, expected in (("network", ramp() / 9), ("reference", ramp() / 2)):
        answer = client.get(f"/api/mosaics/3/{kind}/phase.npy")
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), expected.astype(np.float32))
    assert client.get("/api/mosaics/3/difference_refreshed/phase.png").status_code == 200
    newest = client.get("/api/mosaics/newest/network/phase.npy")
    assert "perspective_0005" in newest.headers["Content-Disposition"]


def test_a_picture_changes_with_each_image_that_it_is_made_of(
    client: TestClient, state: DashboardState, tmp_path: Path
) -> None:
    write_images(tmp_path / "night", 3, ramp())
    etags = set()
    for version in range(3):
        put(state, MosaicKind.REFRESHED, 3, ramp() + version)
        etags.add(client.get("/api/mosaics/3/refreshed/phase.png").headers["ETag"])
    assert len(etags) == 3


def test_a_file_that_cannot_be_read_shows_nothing(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "night" / "images").mkdir()
    (tmp_path / "night" / "images" / "perspective_0001.h5").write_bytes(b"half a file")
    assert client.get("/api/mosaics/1").json() == []
    assert client.get("/api/mosaics/1/refreshed/phase.npy").status_code == 404


def test_an_earlier_run_is_opened_from_its_folder(client: TestClient, state: DashboardState, tmp_path: Path) -> None:
    earlier = tmp_path / "yesterday"
    earlier.mkdir()
    events = [acquired(70), scores(0, MosaicKind.REFRESHED, 21.0)]
    log = b"".join(msgspec.json.encode(telemetry(event)) + b"\n" for event in events)
    (earlier / "telemetry.jsonl").write_bytes(log)
    held_out = {"psnr_db": {"phase": 21.5}}
    (earlier / "summary.json").write_text(json.dumps({"frames": {"acquired": 70}, "held_out": held_out}))
    write_images(earlier, 0, ramp())
    state.apply(telemetry(acquired(5)))
    rows = client.get("/api/runs").json()
    assert [(row["name"], row["live"], row["frames"], row["psnr_phase_db"]) for row in rows] == [
        ("yesterday", False, 70, 21.5)
    ]
    (tmp_path / "night" / "telemetry.jsonl").write_bytes(log)
    assert {row["name"]: row["live"] for row in client.get("/api/runs").json()} == {"yesterday": False, "night": True}
    content = client.get("/api/state?run=yesterday").json()
    assert (content["present"]["frames"]["acquired"], content["present"]["live"]) == (70, False)
    assert content["perspectives"][0]["refreshed"]["psnr_phase_db"] == 21.0
    values = np.load(io.BytesIO(client.get("/api/mosaics/newest/network/phase.npy?run=yesterday").content))
    np.testing.assert_array_equal(values, ramp())
    assert client.get("/api/state").json()["present"]["frames"]["acquired"] == 5


def test_a_run_beside_that_still_goes_on_is_read_on_and_not_anew(client: TestClient, tmp_path: Path) -> None:
    log = tmp_path / "beside" / "telemetry.jsonl"
    log.parent.mkdir()
    write_images(log.parent, 0, ramp())
    seen, tags = [], set()
    for number in (1, 2, 3):
        with log.open("ab") as file:
            file.write(msgspec.json.encode(telemetry(step(number), time_s=float(number))) + b"\n")
        before = client.get("/api/state?run=beside").json()
        seen.append(before["series"]["training"]["columns"]["step"])
        tags.add(client.get("/api/mosaics/0/refreshed/phase.png?run=beside").headers["ETag"])
    assert len(tags) == 1, "a picture that did not change is not drawn and sent again"
    assert seen == [[1.0], [1.0, 2.0], [1.0, 2.0, 3.0]]
    log.write_bytes(msgspec.json.encode(telemetry(step(9), time_s=9.0)) + b"\n")
    anew = client.get("/api/state?run=beside").json()
    assert anew["series"]["training"]["columns"]["step"] == [9.0], "another run took its name"
    assert anew["present"]["instance"] != before["present"]["instance"]


OLD = b'{"time_s":1.0,"sender":"edge","event":{"type":"weights_applied","version":1}}\n'


def test_a_run_of_another_version_is_refused_in_one_line(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "telemetry.jsonl").write_bytes(OLD)
    for path in ("/api/state?run=old", "/api/mosaics/0?run=old"):
        answer = client.get(path)
        assert answer.status_code == 409
        assert "was written by another version of ptychoflow" in answer.json()["detail"]


@pytest.mark.parametrize(
    "summary", [b"[1, 2]", b"\xff", b'{"frames": 3}', b'{"held_out": {"psnr_db": {"phase": "x"}}}', b"[" * 100_000]
)
def test_a_summary_that_is_none_hides_no_run(client: TestClient, tmp_path: Path, summary: bytes) -> None:
    for name in ("broken", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "telemetry.jsonl").write_bytes(b"")
    (tmp_path / "broken" / "summary.json").write_bytes(summary)
    (tmp_path / "whole" / "summary.json").write_text('{"frames": {"acquired": 7}, "held_out": null}')
    assert {row["name"]: row["frames"] for row in client.get("/api/runs").json()} == {"broken": None, "whole": 7}


def external(file: h5py.File, secret: Path) -> None:
    del file["refreshed/phase"]
    file.create_dataset("refreshed/phase", (4, 4), "u1", external=[(str(secret), 0, 16)])


def linked(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["refreshed/phase"] = ramp()
    del file["refreshed/phase"]
    file["refreshed/phase"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/refreshed/phase")


def virtual(file: h5py.File, secret: Path) -> None:
    linked(file, secret)
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[...] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "refreshed/phase", (4, 4))
    del file["refreshed/phase"]
    file.create_virtual_dataset("refreshed/phase", layout)


def no_image(file: h5py.File, _: Path) -> None:
    del file["refreshed/phase"]
    file["refreshed/phase/deeper"] = 1


def text(file: h5py.File, _: Path) -> None:
    del file["refreshed/phase"]
    file["refreshed/phase"] = [["not"], ["numbers"]]


def endless(file: h5py.File, _: Path) -> None:
    del file["refreshed/phase"]
    file.create_dataset("refreshed/phase", (2**30, 2**30), "f4", chunks=(8, 8))


def nowhere(file: h5py.File, _: Path) -> None:
    file["refreshed"].attrs["origin_px"] = ["far", "away"]


@pytest.mark.parametrize("damage", [external, linked, virtual, no_image, text, endless, nowhere])
def test_images_of_a_copied_run_show_nothing_but_themselves(
    client: TestClient, tmp_path: Path, damage: Callable[[h5py.File, Path], None]
) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    write_images(tmp_path / "night", 0, ramp(4, 4))
    with h5py.File(RunFolder(tmp_path / "night").image_file(0), "a") as file:
        damage(file, tmp_path / "secret")
    assert client.get("/api/mosaics/0/refreshed/phase.npy").status_code == 404
    assert client.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [("nowhere", 404), ("..", 422), ("../night", 422), ("a/b", 422), (".hidden", 422), ("x" * 201, 422)],
)
def test_only_runs_beside_this_one_can_be_opened(client: TestClient, tmp_path: Path, name: str, status: int) -> None:
    (tmp_path.parent / "telemetry.jsonl").write_text("")
    for path in ("/api/state", "/api/mosaics/0/refreshed/phase.png", "/api/mosaics/0/refreshed.h5"):
        assert client.get(path, params={"run": name}).status_code == status


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_hides_no_other_of_its_frame(
    client: TestClient, state: DashboardState, broken: float
) -> None:
    state.apply(telemetry(FrameTaken(0, 1, 1)), {"diffraction": np.array([[broken, 0], [9, 999]], np.float32)})
    assert client.get("/api/state").json()["present"]["probe"]["brightest"] == 999.0
    picture = Image.open(io.BytesIO(client.get("/api/frame.png").content)).convert("RGBA")
    opaque = np.asarray(picture)[..., 3] > 0
    assert opaque[1].all()
    assert opaque[0, 1]
    assert picture.getpixel((1, 1)) != picture.getpixel((0, 1)) != picture.getpixel((1, 0))


def test_a_run_that_was_renamed_can_be_opened_and_one_that_cannot_be_named_hides_no_other(
    client: TestClient, tmp_path: Path
) -> None:
    names = (b"scan 12 (good) & <b>50 %<-b>", "Flöte".encode(), b"no\xffutf-8", b"two\nlines", b".trash")
    for name in names:
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / "telemetry.jsonl").write_bytes(msgspec.json.encode(telemetry(acquired(12))) + b"\n")
    listed = {row["name"] for row in client.get("/api/runs").json()}
    assert listed == {"scan 12 (good) & <b>50 %<-b>", "Flöte"}
    for name in listed:
        assert client.get("/api/state", params={"run": name}).json()["present"]["frames"]["acquired"] == 12
    for name in ("two\nlines", "null\0", "\u00fc" * 200):
        assert client.get("/api/state", params={"run": name}).status_code == 404


@pytest.mark.parametrize(
    ("hidden", "listed", "status"), [("", ["own"], 404), ("telemetry.jsonl", ["own", "theirs"], 409)]
)
def test_the_run_of_somebody_who_lets_nobody_read_it_hides_no_other(
    state: DashboardState, hidden: str, listed: list[str], status: int
) -> None:
    with TemporaryDirectory() as made:  # a test's own folder is for its user alone
        folder = Path(made)
        folder.chmod(0o755)
        for name in ("own", "theirs"):
            (folder / name).mkdir()
            (folder / name / "telemetry.jsonl").touch()
        (folder / "theirs" / hidden).chmod(0o000)
        settings = DashboardSettings()
        runs = Runs(state, RunFolder(folder / "own"), settings)
        client = TestClient(create_app(runs, settings), base_url="http://127.0.0.1:8421")
        client.get("/healthz")
        with without_privileges():
            found = client.get("/api/runs").json()
            answer = client.get("/api/state?run=theirs")
            with pytest.raises(UserError, match=r"cannot be read: Permission denied; its owner"):
                read_run(RunFolder(folder / "theirs"), settings)
        (folder / "theirs").chmod(0o755)
    assert sorted(row["name"] for row in found) == listed
    assert (answer.status_code, "theirs" in answer.json()["detail"]) == (status, True)


def test_the_probe_and_the_newest_frame_are_shown(client: TestClient, state: DashboardState) -> None:
    assert client.get("/api/frame.png").status_code == client.get("/api/positions/0.npy").status_code == 404
    state.apply(telemetry(PerspectiveStarted(0, 30.0)), {"positions_px": POSITIONS_PX})
    frame = np.array([[0, 9], [99, 999]], np.float32)
    state.apply(telemetry(FrameTaken(0, 1, 2, most_frames=400)), {"diffraction": frame})
    present = client.get("/api/state").json()["present"]
    assert list(present["paths"]) == ["0"]
    assert present["probe"] == {
        "perspective": 0, "index": 1, "binned_px": 2, "most_frames": 400, "shape_px": [2, 2], "brightest": 999.0,
        "revision": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(np.load(io.BytesIO(client.get("/api/positions/0.npy").content)), POSITIONS_PX)
    np.testing.assert_array_equal(np.load(io.BytesIO(client.get("/api/frame.npy").content)), frame)
    picture = Image.open(io.BytesIO(client.get("/api/frame.png").content))
    # equal steps of a logarithmic scale, whose ends lie where rounding may go either way
    np.testing.assert_allclose(np.asarray(picture).astype(int), [[0, 85], [170, 254]], atol=1)


def test_large_pictures_can_be_fetched_smaller(client: TestClient, state: DashboardState) -> None:
    put(state, MosaicKind.REFRESHED, 0, ramp(60, 80))
    small = Image.open(io.BytesIO(client.get("/api/mosaics/0/refreshed/phase.png?stride=4").content))
    assert small.size == (20, 15)
    for stride in (0, 65):
        assert client.get(f"/api/mosaics/0/refreshed/phase.png?stride={stride}").status_code == 422


def test_tiles_hold_every_pixel_and_change_only_where_the_image_does(client: TestClient, state: DashboardState) -> None:
    image = ramp(600, 700)
    put(state, MosaicKind.REFRESHED, 0, image)
    colours = {"colour_map": "gray", "lower": 0, "upper": 255 * 2000}

    def fetch(place: str, etag: str = "") -> httpx.Response:
        path = f"/api/mosaics/0/refreshed/phase/tile/{place}.png"
        return client.get(path, params=colours, headers={"If-None-Match": etag})

    for place, shown in (
        ("0/0/1", image[:256, 256:512]),
        ("0/2/2", image[512:, 512:]),
        ("1/1/0", image[512::2, :512:2]),
    ):
        pixels = np.asarray(Image.open(io.BytesIO(fetch(place).content)).convert("L"))
        np.testing.assert_array_equal(pixels, matplotlib.colormaps["gray"](shown // 2000 / 254, bytes=True)[..., 0])
    etags = {place: fetch(place).headers["ETag"] for place in ("0/0/0", "0/1/1")}
    image[300, 400] += 5000
    put(state, MosaicKind.REFRESHED, 0, image)
    assert [fetch(place, etag).status_code for place, etag in etags.items()] == [304, 200]
    assert [fetch(place).status_code for place in ("0/3/0", "0/0/3", "7/0/0", "0/-1/0")] == [404, 404, 422, 422]


def test_residuals_are_shown_of_images_at_hand_and_of_those_in_the_folder(
    client: TestClient, state: DashboardState, tmp_path: Path
) -> None:
    put(state, MosaicKind.REFRESHED, 3, ramp())
    event = ResidualMapped(3, MosaicKind.REFRESHED, (-3, 4), 2)
    state.apply(telemetry(event), {"residual": ramp()[::2, ::2] / 1000})
    write_images(tmp_path / "night", 2, ramp())
    for perspective in (2, 3):
        rows = client.get(f"/api/mosaics/{perspective}").json()
        assert [row["residual"] for row in rows if row["kind"] == "refreshed"] == [True]
        answer = client.get(f"/api/mosaics/{perspective}/residual_refreshed/phase.png")
        assert answer.headers["X-Colour-Map"] == "magma"
        assert 0 <= float(answer.headers["X-Lower"]) < float(answer.headers["X-Upper"]) <= 0.048
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA")).astype(int)
        assert pixels.shape == (6, 8, 4)
        assert (pixels[::2, ::2] == pixels[1::2, 1::2]).all(), "a cell has one colour"
        assert pixels[-1, -1].sum() > pixels[0, 0].sum()
    assert client.get("/api/mosaics/2/residual_first_pass/phase.png").status_code == 404
    (picture,) = (tmp_path / "night" / "images").glob("*_refreshed_residual.png")
    assert picture.stat().st_size > 1000
