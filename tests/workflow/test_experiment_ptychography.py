"""`ptychoflow experiment ptychography`: the parts with exact values, and the whole with a rank that is killed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError
from ranks_in_processes import run_in_ranks
from small_experiment import SOURCE, experiment, trained
from support import wait_until

from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.weights_file import read_weights
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.configuration import load_experiment
from ptychoflow.workflow.experiments.ptychography.case import PtychographyCase, all_cases, weights_of
from ptychoflow.workflow.experiments.ptychography.dataset import (
    open_dataset,
    validation_samples,
)
from ptychoflow.workflow.experiments.ptychography.experiment import Ptychography
from ptychoflow.workflow.experiments.ptychography.preparation import prepare
from ptychoflow.workflow.experiments.ptychography.ranking import rank_by_residual
from ptychoflow.workflow.experiments.ptychography.settings import (
    ComparisonSettings,
    PtychographyExperiment,
)
from ptychoflow.workflow.experiments.ptychography.training import train
from ptychoflow.workflow.experiments.ptychography.warm_start import (
    COLD,
    WARM,
    compare_starts,
    epochs_needed,
    write_start,
)
from ptychoflow.workflow.experiments.rank import train_cases
from ptychoflow.workflow.experiments.runner import RANK_MODULE


def test_a_first_try_that_was_refused_leaves_the_folder_to_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "compared"
    for name in ("nothere.h5", "neither.h5"):
        assert run_command_line(["experiment", "ptychography", name, "--out", str(folder)]) == USER_ERROR_STATUS
        assert f"{name}: there is no such file" in capsys.readouterr().err
        assert not folder.exists()
    sample = folder / "samples-seed-1" / "perspective"
    sample.parent.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    assert run_command_line(["experiment", "ptychography", "nothere.h5", "--out", str(folder)]) == USER_ERROR_STATUS
    assert "there is no such file" in capsys.readouterr().err
    sample.touch()
    assert run_command_line(["experiment", "ptychography", "nothere.h5", "--out", str(folder)]) == USER_ERROR_STATUS
    assert "holds results of another configuration" in capsys.readouterr().err
    assert sample.exists()


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experiment\.pases.*passes"):
        load_experiment(
            PtychographyExperiment,
            "ptychography",
            preset="small",
            file=None,
            assignments=["experiment.pases=3"],
            options={},
        )
    with pytest.raises(UserError, match=r"unknown preset 'tiny'; the presets are labels, measured, small, thesis"):
        load_experiment(PtychographyExperiment, "ptychography", preset="tiny", file=None, assignments=[], options={})
    with pytest.raises(ValidationError, match=r"earlier and trainer\.init_weights both say where training begins"):
        experiment(earlier={"source": {}}, trainer={"init_weights": str(tmp_path / "v1.safetensors")})


def test_every_method_begins_with_what_was_learnt_before(tmp_path: Path) -> None:
    settings = experiment(
        earlier={
            "source": SOURCE.model_copy(update={"specimens": (), "perspectives": 1, "seed": 7}).model_dump(mode="json"),
            "until": {"max_epochs": 2},
        },
        trainer={"threads": 1, "model": {"width": 4, "levels": 2}},
        experiment={"methods": ["incremental", "er"]},
    )
    learnt, incremental, er = trained(settings, tmp_path)
    earlier = all_cases(settings, tmp_path)[0]
    assert [len(part.roles) > 0 for part in open_dataset(earlier.dataset)] == [True], "one perspective, none held out"
    assert learnt["epochs"] == 2
    assert incremental["untrained"] == er["untrained"]
    network = read_weights(weights_of(CaseFolder(tmp_path / earlier.name)).read_bytes()).network
    for part, loss in zip(open_dataset(tmp_path / "samples-seed-0"), er["untrained"], strict=False):
        samples = {name: torch.from_numpy(array) for name, array in part.of_role(FrameRole.VALIDATION).items()}
        with torch.no_grad():
            found = network(samples["diffraction"])
        errors = [(getattr(found, name) - samples[name].float()).abs().mean().item() for name in ("amplitude", "phase")]
        assert loss == pytest.approx(sum(errors), rel=0.01)  # evaluated in bfloat16 where the processor has it


def test_a_long_scan_is_evaluated_on_a_few_frames_spread_evenly_and_saved_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save(_self: object, _step: int, *_state: object, common: dict[str, Any], **_own: object) -> None:
        saved.append(common["record"]["sections"][-1])

    monkeypatch.setattr(SectionCheckpoints, "save", save)
    methods = {"methods": ["memoriser", "incremental"], "validation_frames": 3, "checkpoint_every": 2}
    settings = experiment(
        experiment=methods,
        roles={"hold_out": "last_perspective", "validation_fraction": 0.3},
        trainer={"model": {"width": 4, "levels": 2}},
    )
    prepare(settings, seed=0, folder=all_cases(settings, tmp_path)[0].dataset)
    dataset = open_dataset(all_cases(settings, tmp_path)[0].dataset)
    everything, few = validation_samples(dataset, None), validation_samples(dataset, 3)
    for index, arrays in everything.items():
        count = len(arrays["diffraction"])
        assert count > 3
        rows = [0, round((count - 1) / 2), count - 1]
        assert all(np.array_equal(few[index][name], array[rows]) for name, array in arrays.items())
    memoriser, network = trained(settings, tmp_path)
    assert saved == [1]
    assert memoriser["perspectives"] == network["perspectives"] == list(few)
    assert memoriser["constant"]["validation_loss"] == pytest.approx(network["constant"]["validation_loss"], rel=1e-4)


def test_with_less_ground_truth_the_past_is_rehearsed_in_as_many_steps(tmp_path: Path) -> None:
    source = SOURCE.model_copy(update={"specimens": (), "perspectives": 5})
    settings = experiment(
        source=source.model_dump(mode="json"),
        trainer={
            "threads": 1,
            "batch_size": 4,
            "model": {"width": 4, "levels": 2},
            "buffer": {"capacity": 40, "representatives": 6, "candidates": 3},
        },
        experiment={
            "methods": ["er", "incremental", "memoriser"],
            "labelled_one_in": [1, 3],
            "warm_start_epochs": [1, 3],
        },
    )
    cases = all_cases(settings, tmp_path)
    assert [case.name for case in cases[::3]] == ["er-seed-0", "er-one-in-3-seed-0"]
    er, incremental, memoriser, er_less, incremental_less, memoriser_less = trained(settings, tmp_path)
    steps = [-(-len(part.rows(FrameRole.TRAIN)) // 4) for part in cases[0].samples()]
    assert steps[4] == 0, "the last perspective is held out"
    assert er["steps"] == er_less["steps"] == incremental["steps"] == sum(steps)
    assert incremental_less["steps"] == steps[0] + steps[3]
    folder = CaseFolder(tmp_path / cases[0].name)
    (folder.path / "result.json").unlink()
    train_cases(PipelineName.PTYCHOGRAPHY, [folder])  # a rank that was killed when all was learnt
    assert folder.figures() == er
    assert len(er_less["validation_matrix"]) == len(memoriser_less["validation_matrix"]) == 4
    assert er_less["validation_matrix"][0] == er["validation_matrix"][0]
    before, after = (incremental_less["validation_matrix"][number] for number in (0, 2))
    assert before == after, "nothing is learnt of perspectives without ground truth"
    assert er_less["validation_matrix"][0] != er_less["validation_matrix"][2], "but what was seen is rehearsed"
    assert memoriser_less["validation_matrix"][2] == memoriser["validation_matrix"][0]
    whole, less = (sum(part.ground_truth_s for part in open_dataset(cases[0].dataset)[:4:step]) for step in (1, 3))
    assert er["ground_truth_s"] == pytest.approx(whole)
    assert er_less["ground_truth_s"] == pytest.approx(less)
    one = Ptychography(settings, folder=tmp_path)
    content = one.head()
    trainings = (er, incremental, memoriser, er_less, incremental_less, memoriser_less)
    completed = [one.complete(case, run_figures) for case, run_figures in zip(cases, trainings, strict=True)]
    for case, run_figures in zip(cases, completed, strict=True):
        content[case.place[0]].setdefault(case.place[1], []).append(case.parameters() | run_figures)
    content |= one.conclude(content)
    table = one.table(content)
    rows = {row[0]: dict(zip(table.columns, row[1:], strict=True)) for row in table.rows()}
    assert rows["er, 1 in 3"]["against all labels"] == (
        f"{100 * (er_less['validation_loss'][-1] / er['validation_loss'][-1] - 1):+.1f} %"
    )
    assert rows["er"]["against all labels"] == ""
    assert {path.name for path in one.draw(content)} >= {"labels.png"}
    starts = [completed[0]["warm_start"], completed[2]["warm_start"]]
    for start in starts:
        assert [one["epochs"] for one in start] == [1, 3]
        assert start[0][COLD]["residual"] > start[1][COLD]["residual"] > 0
    assert starts[0][1][COLD]["residual"] == starts[1][1][COLD]["residual"], "it knows no method"
    assert starts[0][0][WARM]["residual"] != starts[1][0][WARM]["residual"]


def test_phase_retrieval_that_starts_from_the_truth_is_there_at_once(tmp_path: Path) -> None:
    prepare(experiment(), seed=0, folder=tmp_path)
    dataset = open_dataset(tmp_path)
    truth = dataset[-1].of_role(FrameRole.HELD_OUT)
    write_start(dataset, lambda _: truth, tmp_path / "start.npz")
    found = compare_starts(dataset, tmp_path / "start.npz", RetrievalSettings(), (1, 20))
    assert found is not None
    assert epochs_needed(found) == 1
    assert found[0][WARM]["psnr_db"]["phase"] > found[1][COLD]["psnr_db"]["phase"] + 6
    far = [{"epochs": n, COLD: {"residual": 0.1}, WARM: {"residual": 0.2 / n}} for n in (1, 2, 3)]
    assert epochs_needed(far) == 2
    assert epochs_needed(far[:1]) is None
    assert compare_starts(dataset[:2], tmp_path / "none.npz", RetrievalSettings(), (1,)) is None, "nothing is held out"


def test_pixels_that_do_not_count_are_ignored_by_all_that_is_asked_of_the_samples(tmp_path: Path) -> None:
    """Masked pixels hold 0, which is no measurement."""
    residuals, psnr_db = [], []
    for share in (0.0, 0.1):
        source = SOURCE.model_copy(update={"dead_pixel_fraction": share}).model_dump(mode="json")
        folder = tmp_path / str(share)
        prepare(experiment(source=source), seed=0, folder=folder)
        dataset = open_dataset(folder)
        truth = dataset[-1].of_role(FrameRole.HELD_OUT)
        write_start(dataset, lambda _, truth=truth: truth, tmp_path / "start.npz")
        found = compare_starts(dataset, tmp_path / "start.npz", RetrievalSettings(), (5,))
        assert found is not None
        validation = validation_samples(dataset, None)
        ranks = rank_by_residual(dataset, validation, lambda index, _, known=validation: known[index])
        assert ranks is not None
        residuals.append((ranks["residual_of_truth"], found[0][WARM]["residual"]))
        psnr_db.append(found[0][WARM]["psnr_db"]["phase"])
    assert residuals[1] == pytest.approx(residuals[0], rel=0.5)
    assert psnr_db[1] > psnr_db[0] - 4


def test_a_perspective_that_makes_no_step_of_its_own_has_a_checkpoint_all_the_same(tmp_path: Path) -> None:
    """Its minibatches wait for those of the next to make a step with."""
    settings = experiment(
        trainer={"threads": 1, "model": {"width": 2, "levels": 2}, "optimizer": {"accumulate": 1000}},
        experiment={"methods": ["incremental"]},
    )
    (figures,) = trained(settings, tmp_path)
    (case,) = all_cases(settings, tmp_path)
    found = newest(CaseFolder(tmp_path / case.name).checkpoints)
    assert found is not None
    assert len(found.common()["record"]["sections"]) == len(figures["validation_loss"]) > 1


def train_rank(number: int, case: PtychographyCase, folder: CaseFolder) -> None:
    train(case, folder, Rank(number, 2, torch.device("cpu"), Precision.FLOAT32))


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[PtychographyCase, CaseFolder]:
    """Return a case that two ranks have trained, and its folder with the last checkpoint."""
    folder = tmp_path_factory.mktemp("on-two-ranks")
    settings = experiment(
        trainer={"threads": 1, "ranks": 2, "model": {"width": 2, "levels": 2}}, experiment={"methods": ["incremental"]}
    )
    (case,) = all_cases(settings, folder)
    prepare(settings, seed=0, folder=case.dataset)
    trained_in = CaseFolder(folder / case.name)
    trained_in.begin(case)
    run_in_ranks(train_rank, 2, case, trained_in)
    return case, trained_in


def test_ranks_draw_random_numbers_of_their_own(on_two_ranks: tuple[PtychographyCase, CaseFolder]) -> None:
    _, folder = on_two_ranks
    found = newest(folder.checkpoints)
    assert found is not None
    first, second = (shard["learner"]["random_state"] for shard in found.shards())
    assert not torch.equal(first, second)


def test_the_constant_prediction_is_the_mean_patch_of_all_ranks(
    on_two_ranks: tuple[PtychographyCase, CaseFolder],
) -> None:
    case, folder = on_two_ranks
    phases = np.concatenate([part.of_role(FrameRole.TRAIN)["phase"] for part in open_dataset(case.dataset)])
    constant = read_weights(weights_of(folder).read_bytes()).constant_phase
    np.testing.assert_allclose(constant, phases.astype(np.float64).mean(axis=0), atol=1e-4)


def test_incremental_has_as_many_samples_and_steps_as_rehearsal_has(tmp_path: Path) -> None:
    settings = experiment(
        trainer={
            "threads": 1,
            "batch_size": 4,
            "model": {"width": 4, "levels": 2},
            "buffer": {"capacity": 40, "representatives": 6, "candidates": 3},
        },
        experiment={"methods": ["er", "incremental_more"], "passes": 2},
    )
    er, more = trained(settings, tmp_path)
    rehearsing, incremental = (case.learning for case in all_cases(settings, tmp_path))
    (wide,) = all_cases(settings.model_copy(update={"experiment": ComparisonSettings(methods=("er_more",))}), tmp_path)
    assert (wide.learning.strategy, wide.learning.buffer.representatives) == ("er", 12)
    assert incremental.batch_size == rehearsing.batch_size + rehearsing.buffer.representatives == 10
    assert abs(er["steps"] - more["steps"]) <= len(er["perspectives"]), "a perspective's last step may be short"
    table = Ptychography(settings, folder=tmp_path).table(
        {"strategies": {"er": [er | {"seed": 0}], "incremental_more": [more | {"seed": 0}]}, "constant": CONSTANT}
    )
    headings = list(table.columns)
    assert all(len(row) == 1 + len(headings) for row in table.rows())
    last = dict(zip(headings, table.rows()[-1][1:], strict=True))
    assert (last["validation loss"], last["phase PSNR, dB"], last["steps"]) == ("0.2500", "12.00", "")
    for found in (er, more):
        assert -1.0 <= found["residual_ranks"]["per_frame"] <= 1.0
        assert 0.0 < found["residual_ranks"]["residual_of_truth"] < found["residual_ranks"]["residual"] < 1.0
        assert found["raw_loss"] > 0
        assert found["raw_loss"] != found["validation_loss"][-1]
        assert found["late_loss"] == pytest.approx(np.mean(found["validation_matrix"][-1]), rel=1e-6)


CONSTANT = {
    "validation_loss": 0.25,
    "psnr_db": {"amplitude": 11.0, "phase": 12.0},
    "ssim": {"amplitude": 0.1, "phase": 0.2},
}


def test_residuals_rank_predictions_as_their_errors_do(tmp_path: Path) -> None:
    """Patches between the truth and nothing: the farther away, the larger is the residual."""
    prepare(experiment(), seed=0, folder=tmp_path)
    dataset = open_dataset(tmp_path)
    assert all(part.probe is not None for part in dataset)
    parts = [part.of_role(FrameRole.VALIDATION) for part in dataset]
    known = {frame.tobytes(): (part, row) for part in parts for row, frame in enumerate(part["diffraction"])}

    def predict(_index: int, frames: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {"amplitude": [], "phase": []}
        for number, frame in enumerate(frames):
            part, row = known[frame.tobytes()]
            share = number / len(frames)
            found["amplitude"].append(1 + (part["amplitude"][row].astype(float) - 1) * (1 - share))
            found["phase"].append(part["phase"][row].astype(float) * (1 - share))
        return {name: np.stack(patches) for name, patches in found.items()}

    validation = validation_samples(dataset, None)
    ranks = rank_by_residual(dataset, validation, predict)
    assert ranks is not None
    assert ranks["per_frame"] > 0.7
    assert ranks["residual_of_truth"] < ranks["residual"]
    assert rank_by_residual([replace(part, probe=None) for part in dataset], validation, predict) is None


def test_images_have_methods_of_their_own() -> None:
    with pytest.raises(ValidationError, match="memoriser is compared on scans only"):
        ClassificationExperiment.model_validate({"experiment": {"methods": ["memoriser"]}})


CONFIG = """
[source]
frames_per_perspective = 80
frame_shape_px = [32, 32]
specimens = [{kind = "cells", perspectives = 2, seed = 1}, {kind = "integrated_circuit", perspectives = 2, seed = 2}]
[retrieval]
epochs = 6
target_shape_px = [16, 16]
[earlier]
until = {max_epochs = 1}
[earlier.source]
frames_per_perspective = 40
frame_shape_px = [32, 32]
specimens = [{kind = "cells", perspectives = 1, seed = 3}]
[trainer]
threads = 1
batch_size = 8
[trainer.model]
width = 4
levels = 2
[trainer.buffer]
capacity = 40
representatives = 8
candidates = 7
[experiment]
first_seed = 0
passes = 3
"""


def arguments(folder: Path, *options: str) -> list[str]:
    config = folder.parent / "config.toml"
    command = ["experiment", "ptychography", "--out", str(folder), "--config", str(config), "--method", "derpp"]
    return [*command, *options]


def never_interrupted(folder: Path) -> dict[str, Any]:
    """Return the result of the same training in this process."""
    settings = load_experiment(
        PtychographyExperiment,
        "ptychography",
        preset="small",
        file=folder.parent / "config.toml",
        assignments=[],
        options={"experiment": {"methods": ["derpp"]}},
    )
    _, result = trained(settings, folder)
    return result


def test_a_killed_rank_does_not_change_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The draw that was under way when the checkpoint was taken is another one; all else is the same."""
    (tmp_path / "config.toml").write_text(CONFIG)
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "ptychoflow", *arguments(folder, "--json", str(tmp_path / "killed.json"))]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    case = folder / "derpp-seed-0"
    wait_until(lambda: any(case.glob("checkpoints/step-*/complete.json")), timeout_s=120)
    os.kill(rank_of(killed), signal.SIGKILL)
    output, errors = killed.communicate(timeout=240)
    assert killed.returncode == 0, errors
    assert "constant prediction" in output
    assert "going on after perspective" in (folder / "training.log").read_text()
    for name in ("validation_loss.png", "held_out.png", "forgetting.png", "table.md", "results.json"):
        assert (folder / name).stat().st_size > 0

    results = json.loads((tmp_path / "killed.json").read_text())
    assert math.isfinite(results["constant"]["psnr_db"]["phase"])
    found, expected = results["strategies"]["derpp"][0], never_interrupted(tmp_path / "whole")
    assert found["validation_matrix"][0] == pytest.approx(expected["validation_matrix"][0], rel=1e-4)
    assert np.allclose(found["validation_matrix"], expected["validation_matrix"], rtol=0.05)
    assert found["steps"] == expected["steps"] > 0
    expected_db = expected["held_out"]["psnr_db"]["phase"]
    assert found["held_out"]["psnr_db"]["phase"] == pytest.approx(expected_db, abs=0.5)

    wide = arguments(tmp_path / "wide", "--set", "earlier.source.frame_shape_px=[64,64]")
    assert run_command_line(wide) == USER_ERROR_STATUS
    errors = capsys.readouterr().err
    assert (
        "earlier.source: its frames have (64, 64) px, those of the first scan (32, 32) px: "
        "set earlier.source.frame_shape_px" in errors
    )
    assert run_command_line(arguments(folder, "--set", "trainer.learning_rate=0.5")) == USER_ERROR_STATUS
    errors = capsys.readouterr().err
    assert errors.strip().splitlines()[-1].endswith("choose another --out, or remove it")


def rank_of(process: subprocess.Popen[str]) -> int:
    """Return the process of the rank."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if RANK_MODULE in child.cmdline() and child.children() == []:
                return child.pid
        except psutil.Error:
            continue
    raise AssertionError("no rank is running")
