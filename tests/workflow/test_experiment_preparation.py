"""Samples for experiments on scans: every frame with its ground truth, once, or set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from small_experiment import SOURCE, experiment

from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.retrieval.worker import WORKER_MODULE as RETRIEVER
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.workflow.experiments.ptychography.dataset import open_dataset
from ptychoflow.workflow.experiments.ptychography.preparation import prepare


def test_samples_of_a_seed_are_its_own_and_repeatable(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(experiment(), seed=seed, folder=tmp_path / name)
    a, b, c = (open_dataset(tmp_path / name) for name in "abc")
    for first, same, other in zip(a, b, c, strict=True):
        assert np.array_equal(first.samples["diffraction"], same.samples["diffraction"])
        assert np.array_equal(first.roles, same.roles)
        assert first.samples["phase"].shape != other.samples["phase"].shape or not np.array_equal(
            first.samples["phase"], other.samples["phase"]
        )
    assert set(a[-1].roles.tolist()) == {FrameRole.HELD_OUT}
    assert FrameRole.HELD_OUT not in a[0].roles
    assert len(a[-1].roles) == 40, "void frames are kept where an image is stitched"
    void = np.mean(a[0].samples["phase"].astype(float) ** 2, axis=(1, 2)) < 0.02
    assert not void.any()


def test_phases_are_retrieved_in_a_process_that_leaves_nothing_behind(tmp_path: Path) -> None:
    """The library seeds all random generators and takes every GPU that it sees."""
    specimen = SOURCE.specimens[0].model_copy(update={"perspectives": 1})
    source = SOURCE.model_copy(update={"specimens": (specimen,)}).model_dump(mode="json")
    retrieval = {"source": "ptychi", "epochs": 2, "target_shape_px": [16, 16]}
    settings = experiment(source=source, retrieval=retrieval, roles={"hold_out": "none"})
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002  what the library seeds
    prepare(settings, seed=0, folder=tmp_path)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert not [child for child in psutil.Process().children() if RETRIEVER in " ".join(child.cmdline())]
    assert not list((tmp_path / "jobs").iterdir())
    (part,) = open_dataset(tmp_path)
    assert part.ground_truth_s > 0
    assert 0.1 < part.samples["phase"].std() < 2


def test_frames_that_show_nothing_are_set_aside_as_in_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scan.h5"
    with Recorder(path) as recorder:
        for perspective in SimulatedScan(SOURCE):
            recorder.start_perspective(perspective)
            (batch,) = perspective.batches(len(perspective))
            frames = batch.frames.astype(np.float32)
            frames[3, 5], frames[7], frames[8] = np.nan, 0, np.inf
            recorder.append(replace(batch, frames=frames))
    settings = experiment(
        source={"kind": "replay", "path": str(path)}, retrieval={"epochs": 2, "target_shape_px": [16, 16]}
    )
    prepare(settings, seed=0, folder=tmp_path / "samples")
    held_out = open_dataset(tmp_path / "samples")[-1]
    assert all(np.isfinite(array).all() for array in held_out.samples.values())
    recorded = open_scan(ReplaySettings(path=path)).perspective(2).positions_px
    assert held_out.positions_px is not None
    assert np.array_equal(held_out.positions_px, np.delete(recorded, [3, 7, 8], axis=0))
    assert [one.message for one in caplog.records if "perspective 2: 3 frames" in one.message and "3, 7" in one.message]


def test_a_folder_of_training_samples_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, frames in (("scan2", 30), ("scan1", 20), ("scan3", 10)):
        scan = tmp_path / "train" / name
        scan.mkdir(parents=True)
        phase = random.uniform(-1, 1, (frames, 8, 8))
        phase[:4] = 0.01  # void
        np.save(scan / "cropped_exp_diffr_data.npy", random.poisson(5.0, (frames, 16, 16)).astype(np.uint16))
        np.save(scan / "patched_psi.npy", (0.8 * np.exp(1j * phase)).astype(np.complex64))
    settings = experiment(source={"kind": "training_set", "path": str(tmp_path)})
    prepare(settings, seed=0, folder=tmp_path / "samples")
    dataset = open_dataset(tmp_path / "samples")
    assert [len(part.roles) for part in dataset] == [16, 26, 6]
    assert set(dataset[2].roles.tolist()) == {FrameRole.HELD_OUT}
    assert np.allclose(dataset[0].samples["amplitude"], 0.8, atol=1e-3)
    patches = np.load(tmp_path / "train" / "scan1" / "patched_psi.npy")
    patches[7, 2, 3] = complex(0.8, np.nan)
    np.save(tmp_path / "train" / "scan1" / "patched_psi.npy", patches)
    prepare(settings, seed=0, folder=tmp_path / "without")
    first = open_dataset(tmp_path / "without")[0]
    assert len(first.roles) == 15
    assert all(np.isfinite(array).all() for array in first.samples.values())
    np.save(tmp_path / "train" / "scan1" / "patched_psi.npy", np.ones((3, 8, 8), np.complex64))
    with pytest.raises(UserError, match=r"scan1.*do not belong together"):
        prepare(settings, seed=0, folder=tmp_path / "others")
