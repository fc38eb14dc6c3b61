"""A run whose network is good enough lets phase retrieval rest, and takes it up again when the specimen changes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tomli_w
import torch

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings, SpecimenKind, SpecimenPhase
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.weights_file import Manifest, write_weights

FIRST = SpecimenPhase(kind=SpecimenKind.INTEGRATED_CIRCUIT, perspectives=6, angle_range_deg=(0.0, 0.0))
SECOND = SpecimenPhase(kind=SpecimenKind.CELLS, perspectives=5, angle_range_deg=(0.0, 0.0))
SOURCE = SimulationSettings(specimens=(FIRST, SECOND), frames_per_perspective=100, frame_shape_px=(32, 32), seed=5)
NETWORK = NetworkConfig(model=ModelSettings(width=4), frame_shape_px=(32, 32), target_shape_px=(16, 16))
STEPS = 400


def samples_of_the_first_specimen() -> tuple[torch.Tensor, Patches]:
    scan = SimulatedScan(SOURCE)
    truth_is_known = RetrievalSettings(source=GroundTruthSource.SIMULATED)
    frames, amplitude, phase = [], [], []
    for index in range(2):
        perspective = scan.perspective(index)
        counts = perspective.read(0, len(perspective))
        positions, image = perspective.positions_px, perspective.ground_truth
        job = GroundTruthJob(index, counts, positions, perspective.probe, None, image, NETWORK.target_shape_px)
        truth = compute_ground_truth(job, truth_is_known)
        frames.append(counts.astype(np.float32))
        amplitude.append(truth.amplitude.astype(np.float32))
        phase.append(truth.phase.astype(np.float32))
    counts, *target = (torch.from_numpy(np.concatenate(parts)) for parts in (frames, amplitude, phase))
    return counts, Patches(*target)


def write_weights_that_know_the_first_specimen(path: Path) -> None:
    counts, target = samples_of_the_first_specimen()
    torch.manual_seed(0)
    network = FrameNetwork(NETWORK)
    network.scale_input_to(network.input_power(counts))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        rows = torch.randint(len(counts), (24,))
        output = network(counts[rows])
        errors = [(there - truth[rows]).abs().mean() for there, truth in zip(output, target, strict=True)]
        optimizer.zero_grad()
        sum(errors).backward()
        optimizer.step()
    manifest = Manifest(
        version=1, step=STEPS, network=NETWORK, validation_loss=None, final=False, created_at=datetime.now(UTC), run="a"
    )
    path.write_bytes(write_weights(network, manifest, constant=Patches(*(channel.mean(0) for channel in target))))


def test_phase_retrieval_rests_until_the_specimen_changes(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    write_weights_that_know_the_first_specimen(weights)
    settings = {
        "run": {"directory": str(tmp_path), "name": "drift"},
        "source": SOURCE.model_dump(mode="json", exclude_none=True),
        "acquisition": {"rate_hz": 100.0, "regime": {"ssim": 0.3, "consecutive": 2, "one_in": 3}},
        "retrieval": {"epochs": 8, "target_shape_px": [16, 16]},
        "trainer": {
            "init_weights": str(weights),
            "model": {"width": 4},
            "finish_s": 0.0,
            "buffer": {"capacity": 200},
        },
        "edge": {"score_period_s": 0.5},
        "dashboard": {"enabled": False},
    }
    configuration = tmp_path / "drift.toml"
    configuration.write_text(tomli_w.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "ptychoflow", "run", "--config", str(configuration)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "drift" / "summary.json").read_text())
    regime, frames = summary["regime"], summary["frames"]
    monitoring, learning = regime["changes"][:2]
    assert (monitoring["regime"], learning["regime"]) == ("monitoring", "learning")
    assert 2 <= monitoring["perspective"] < FIRST.perspectives
    assert learning["perspective"] > FIRST.perspectives
    drifted = int(learning["reason"].split(":")[0].removeprefix("perspective "))
    assert drifted >= FIRST.perspectives
    skipped = regime["perspectives_skipped"]
    assert len(skipped) >= 3
    assert regime["switches"] == len(regime["changes"])
    assert regime["ground_truth_seconds"] > 0
    mean_s = regime["ground_truth_seconds"] / (11 - len(skipped))
    assert 0.2 * mean_s * len(skipped) < regime["ground_truth_seconds_saved"] < 5 * mean_s * len(skipped)
    assert frames["acquired"] == frames["inferred"] == 1100
    assert frames["lost"] == 0
    assert frames["unlabelled"] == summary["unlabelled_because"]["monitoring"] == 100 * len(skipped)
    report = (tmp_path / "drift" / "report.html").read_text()
    assert f"Monitoring from perspective {monitoring['perspective']} on" in report
    assert f"{100 * len(skipped)} because the run was monitoring" in report
