"""What a part would refuse when it starts is refused in one line before any starts, and leaves no folder of a run."""

from __future__ import annotations

import importlib.util
import re
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import zmq
from image_folders import write_digits
from support import free_ports

from ptychoflow.streaming import libraries
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.workflow.benchmarks.beamline import random_weights
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS
from ptychoflow.workflow.experiments.configuration import load_experiment
from ptychoflow.workflow.experiments.ptychography.experiment import Ptychography
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment
from ptychoflow.workflow.launching import launcher

SMALL = ("source.kind=simulation", "source.perspectives=2", "source.frames_per_perspective=9")
FREE_PORT = "dashboard.port=0"
FAR = "198.51.100.7"
"""An address that no host has (RFC 5737)."""


DETECTOR = (
    *("source.kind=live", "source.frames.kind=dectris-v2", "source.frames.host=127.0.0.1", "source.perspectives=2"),
    *("source.positions.kind=position-sender", "source.join.first_frame=0"),
    *("source.join.first_sample=0", "source.join.samples_per_frame=1"),
)


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_run", lambda *_: 0)


def refusal(folder: Path, *assignments: str, source: tuple[str, ...] = SMALL) -> str:
    runs = folder / "runs"
    given = (*source, "source.frame_shape_px=[32,32]") if source is SMALL else source
    with pytest.raises(UserError) as error:
        launcher.launch(load_config(assignments=(*given, FREE_PORT, f"run.directory={runs}", *assignments)))
    assert not runs.exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["buffer.capacity=23"], "trainer.buffer: representatives 24 is larger than capacity 23"),
        (["buffer.capacity=47", "strategy=derpp_two_draws"], "representatives 48 is larger than capacity 47"),
        (["buffer.capacity=2", "buffer.representatives=1", "ranks=3"], "smaller than the number of ranks, 3"),
        (["buffer.rehearse_from_items=4001"], "trainer.buffer: rehearse_from_items 4001 is larger than"),
    ],
)
def test_a_buffer_that_cannot_be(tmp_path: Path, assignments: list[str], said: str) -> None:
    assert said in refusal(tmp_path, *(f"trainer.{one}" for one in assignments))


@pytest.mark.parametrize(("strategy", "arrays"), [("er", 2), ("derpp", 4)])
def test_a_buffer_in_bytes_that_cannot_be(tmp_path: Path, strategy: str, arrays: int) -> None:
    # 24 representatives, and 2 * 14 rows to spare, of frames in float32 and patches in float16
    enough = (24 + 28) * (16 * 32 * 4 + arrays * 16 * 16 * 2)
    given = (f"trainer.strategy={strategy}", "retrieval.target_shape_px=[16,16]", "source.frame_shape_px=[16,32]")
    given = (*SMALL, *given)
    bytes_ = "trainer.buffer.capacity_bytes"
    assert f"capacity_bytes 1000 is too small: 1 rank(s) need {enough // 52 * 29}" in refusal(
        tmp_path, f"{bytes_}=1000", source=given
    )
    assert "representatives 24 is larger than capacity 23" in refusal(tmp_path, f"{bytes_}={enough - 1}", source=given)
    launch = (*given, FREE_PORT, f"{bytes_}={enough}", f"run.directory={tmp_path / 'runs'}")
    assert launcher.launch(load_config(assignments=launch)) == 0


def test_what_does_not_fit_the_frames_that_are_cut_out_of_a_detectors(tmp_path: Path) -> None:
    cut = (*DETECTOR, "source.preprocess.crop_px=[64,48]")
    assert "capacity_bytes 1000 is too small" in refusal(tmp_path, "trainer.buffer.capacity_bytes=1000", source=cut)
    assert "cannot map frames of (64, 48) px" in refusal(tmp_path, "trainer.model.levels=6", source=cut)


def test_a_warm_start_of_what_cannot_start_warm() -> None:
    for unable in ("retrieval.source=simulated", "retrieval.algorithm=dm"):
        with pytest.raises(UserError, match="warm_start needs source = 'ptychi' with the algorithm lsqml or rpie"):
            load_config(assignments=(*SMALL, "retrieval.warm_start=true", unable))


def test_frames_that_tike_does_not_take(tmp_path: Path) -> None:
    given = (*SMALL, "source.frame_shape_px=[32,64]", "retrieval.source=tike")
    assert "tike needs square frames, not 32x64" in refusal(tmp_path, source=given)


def test_initial_weights_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(random_weights(TrainerSettings().model, 64))
    assert "belong to another network: frame_shape_px is" in refusal(tmp_path, f"trainer.init_weights={file}")


@pytest.mark.parametrize(
    ("classes", "assignments", "said"),
    [
        (1, ["source.tasks=1"], "there is one class alone"),
        (4, ["trainer.model.name=resnet19"], "torchvision has no model 'resnet19'"),
        (4, ["trainer.buffer.capacity=24", "trainer.ranks=7"], "smaller than ranks x classes = 7 x 4"),
        (4, ["trainer.buffer.capacity_bytes=1000"], "trainer.buffer: capacity_bytes 1000 is too small"),
    ],
)
def test_images_that_cannot_be_learnt(tmp_path: Path, classes: int, assignments: list[str], said: str) -> None:
    images = write_digits(tmp_path / "images", classes=classes, train=2, val=1)
    given = ("source.kind=images", f"source.folder={images}", "source.stored_px=32", "trainer.image_px=32")
    assert said in refusal(tmp_path, *assignments, source=(*given, "source.tasks=2"))


def test_the_sizes_of_a_buffer_that_is_not_used_do_not_matter(tmp_path: Path) -> None:
    given = (
        FREE_PORT,
        "trainer.buffer.capacity=1",
        "trainer.strategy=incremental",
        f"run.directory={tmp_path / 'runs'}",
    )
    assert launcher.launch(load_config(assignments=(*SMALL, "source.frame_shape_px=[32,32]", *given))) == 0


@pytest.mark.parametrize("missing", ["tike", "ucxx", "openvino", "p4p"])
def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(libraries, "find_spec", find_spec)
    monkeypatch.setattr("ptychoflow.inference_edge.backends.openvino.find_spec", find_spec)
    asked = {
        "tike": ("retrieval.source=tike",),
        "ucxx": ("trainer.buffer.transport=ucx",),
        "openvino": ("edge.backend=openvino",),
        "p4p": (
            *("source.kind=live", "source.frames.kind=ntndarray", "source.frames.pv=P", "source.perspectives=2"),
            *("source.positions.kind=position-sender", "source.frames.series.by=pause", "source.join.first_frame=0"),
            *("source.frames.series.pause_s=1", "source.frames.number_from=unique_id"),
            *("source.join.first_sample=0", "source.join.samples_per_frame=1"),
        ),
    }
    said = refusal(tmp_path, *asked[missing], source=() if missing == "p4p" else SMALL)
    assert missing in said
    assert "not installed" in said


@pytest.mark.parametrize("setting", ["trainer.device", "edge.device", "retrieval.device"])
def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert refusal(tmp_path, f"{setting}=cuda").startswith(f'{setting} = "cuda", but this host has no usable GPU')


def test_a_backend_for_another_device(tmp_path: Path) -> None:
    assert "cuda_graph" in refusal(tmp_path, "edge.backend=cuda_graph", "edge.device=cpu")


def test_a_folder_for_outputs_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in", Path("/proc/ptychoflow")):
        said = refusal(tmp_path, f"outputs.ptychodus.folder={folder}")
        assert said.startswith(f"cannot write {folder}/")
    wanted = tmp_path / "made" / "later"
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="cannot make the run folder"):
        given = (*SMALL, FREE_PORT, f"run.directory={tmp_path / 'runs'}", f"outputs.ptychodus.folder={wanted}")
        launcher.launch(load_config(assignments=given))
    assert not wanted.parent.exists()


@pytest.mark.parametrize("part", ["hub", "acquisition", "trainer"])
def test_a_host_of_the_network_that_is_another_one(tmp_path: Path, part: str) -> None:
    make_keys(tmp_path / "keys")
    said = refusal(tmp_path, f"network.keys_dir={tmp_path / 'keys'}", f"network.{part}_host={FAR}")
    assert said.startswith(f"network.{part}_host = {FAR}: this host cannot listen there: ")


@pytest.mark.parametrize("section", ["dashboard", "outputs.bluesky"])
def test_a_host_of_the_page_or_of_an_output_that_is_another_one(tmp_path: Path, section: str) -> None:
    for port in (0, 8421) if section == "dashboard" else (5578,):
        said = refusal(tmp_path, f"{section}.host={FAR}", f"{section}.port={port}")
        assert said.startswith(f"{section}.host = {FAR}: this host cannot listen there: ")


def test_a_port_that_is_taken_on_the_host_where_it_is_wanted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        said = refusal(tmp_path, f"network.weights_port={port}", "network.trainer_host=127.0.0.2")
    assert f"port {port} is in use on 127.0.0.2" in said


def test_one_port_for_two_things(tmp_path: Path) -> None:
    port, other = free_ports(2)
    for one, two in [
        ("network.frames_port", "network.telemetry_port"),
        ("network.weights_port", "dashboard.port"),
        ("dashboard.port", "outputs.bluesky.port"),
    ]:
        said = refusal(tmp_path, f"network.fanout_port={other}", f"{one}={port}", f"{two}={port}")
        assert f"both come to port {port}" in said
        assert one in said
        assert two in said


def test_ports_of_ranks_beyond_the_last_one(tmp_path: Path) -> None:
    assert "above 65535" in refusal(tmp_path, "network.samples_port=65535", "trainer.ranks=2")


def test_keys_that_are_missing(tmp_path: Path) -> None:
    assert "0.0.0.0 is not loopback and needs keys" in refusal(tmp_path, "network.hub_host=0.0.0.0")
    port = f"network.frames_port={free_ports(1)[0]}"
    assert "holds no hub.key_secret" in refusal(tmp_path, port, f"network.keys_dir={tmp_path / 'absent'}")
    make_keys(tmp_path / "keys")
    (tmp_path / "keys" / "edge.key_secret").unlink()
    assert "holds no edge.key_secret" in refusal(tmp_path, port, f"network.keys_dir={tmp_path / 'keys'}")


def test_a_folder_of_sockets_that_cannot_be_made_or_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write the folder" in refusal(tmp_path, f"network.sockets_dir={tmp_path / 'file'}")
    network = NetworkSettings(sockets_dir=tmp_path / "sockets")
    with Sockets(network) as sockets:
        sockets.bind(zmq.PULL, network.hub_host, network.telemetry_port)
        assert "Address already in use" in refusal(tmp_path, f"network.sockets_dir={tmp_path / 'sockets'}")
    (tmp_path / "sockets").chmod(0o755)
    assert "other users can enter" in refusal(tmp_path, f"network.sockets_dir={tmp_path / 'sockets'}")


def test_a_network_that_does_not_fit_the_frames(tmp_path: Path) -> None:
    said = refusal(tmp_path, "trainer.model.levels=5")
    assert "cannot map frames of (32, 32) px" in said
    assert "not smaller than the patch" in refusal(tmp_path, "retrieval.target_shape_px=[64,64]")


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ["experiment.methods=['er_more']", "trainer.buffer.capacity=40"],
            "representatives 48 is larger than capacity",
        ),
        (["retrieval.source=tike"], "retrieval.source is tike, which is not installed"),
        (["trainer.buffer.capacity_bytes=1000"], "trainer.buffer: capacity_bytes 1000 is too small"),
        (["trainer.model.levels=7"], "cannot map frames of"),
        (["earlier.source.frame_shape_px=[32,32]"], r"earlier.source: its frames have \(32, 32\) px"),
        (["trainer.device=cuda"], 'trainer.device = "cuda", but this host has no usable GPU'),
        (["roles.validation_fraction=0"], "roles.validation_fraction must be above 0"),
        (["experiment.warm_start_epochs=[5,2]"], "numbers must rise"),
    ],
)
def test_an_experiment_that_cannot_be_trained_prepares_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    assignments: list[str],
    said: str,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tike" else found(name))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    given = [part for one in ("experiment.methods=['er']", *assignments) for part in ("--set", one)]
    status = run_command_line(["experiment", "ptychography", "--out", str(tmp_path / "out"), *given])
    assert status == USER_ERROR_STATUS
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "retrieval", "said"),
    [
        ("frame_shape_px = [64, 64]", "tike", "retrieval.source is tike, which is not installed"),
        ("frame_shape_px = [32, 32]", "simulated", "later.0.source: its frames have (32, 32) px"),
        (
            "frame_shape_px = [64, 64], photons_per_frame = 1e9",
            "simulated",
            "later.0.source: its frames come as float32",
        ),
        ("frame_shape_px = [64, 64]", "recorded", None),
    ],
)
def test_a_later_scan_that_cannot_be_learnt_after_the_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    retrieval: str,
    said: str | None,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tike" else found(name))
    file = tmp_path / "later.toml"
    scan = f"{{ kind = 'simulation', frames_per_perspective = 9, {source} }}"
    file.write_text(f"[[later]]\nsource = {scan}\nretrieval = {{ source = '{retrieval}' }}\n")
    settings = load_experiment(
        PtychographyExperiment,
        "ptychography",
        preset="small",
        file=file,
        assignments=["source.photons_per_frame=1e5"],
        options={},
    )

    def check() -> None:
        experiment = Ptychography(settings, folder=tmp_path / "out")
        experiment.check(experiment.cases())

    if said is None:
        check()
    else:
        with pytest.raises(UserError, match=re.escape(said)):
            check()


def training_set(folder: Path, *shapes_px: tuple[int, int]) -> Path:
    for number, shape_px in enumerate(shapes_px):
        scan = folder / "train" / f"scan{number}"
        scan.mkdir(parents=True)
        np.save(scan / "cropped_exp_diffr_data.npy", np.ones((4, *shape_px), np.float32))
        np.save(scan / "patched_psi.npy", np.ones((4, *shape_px), np.complex64))
    return folder


@pytest.mark.parametrize(
    ("shapes_px", "said"),
    [
        ([(4, 4)], "cannot map frames of (4, 4) px"),
        ([(32, 32), (32, 48)], "scan1: frames and patches have other shapes or types than in"),
    ],
)
def test_a_training_set_that_cannot_be_learnt_is_not_prepared(
    tmp_path: Path, shapes_px: list[tuple[int, int]], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = training_set(tmp_path / "set", *shapes_px)
    file = tmp_path / "set.toml"
    file.write_text(f"later = []\n[source]\nkind = 'training_set'\npath = '{folder}'\n")
    command = ["experiment", "ptychography", "--preset", "measured", "--config", str(file)]
    assert run_command_line([*command, "--out", str(tmp_path / "out")]) == USER_ERROR_STATUS
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("classes", "assignments", "said"),
    [
        (1, ["images.tasks=1"], "there is one class alone"),
        (4, ["training.model.family=timm", "training.model.name=resnet19"], "timm has no model 'resnet19'"),
        (4, ["training.buffer.rehearse_from_items=100"], "training.buffer: rehearse_from_items 100 is larger"),
        (4, ["training.buffer.capacity_bytes=1000"], "training.buffer: capacity_bytes 1000 is too small"),
        (4, ["training.device=cuda"], 'training.device = "cuda", but this host has no usable GPU'),
        (4, ["training.optimizer.accumulate=7"], "2 ranks have 2 minibatches in all tasks together"),
        (4, ["images.loader=dali", "images.keep_in_memory=false"], "images.loader is 'dali', but"),
    ],
)
def test_an_experiment_on_images_that_cannot_be_trained_replaces_no_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    classes: int,
    assignments: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    images = write_digits(tmp_path / "images", classes=classes, train=20, val=1)
    results = tmp_path / "results.json"
    results.write_text("of before")
    changes = ["images.tasks=2", "training.buffer_share=1.0", "training.buffer.representatives=8", *assignments]
    given = [part for one in changes for part in ("--set", one)]
    status = run_command_line(["experiment", "classification", str(images), "--json", str(results), *given])
    assert status == USER_ERROR_STATUS
    assert said in " ".join(capsys.readouterr().err.split())
    assert results.read_text() == "of before"
