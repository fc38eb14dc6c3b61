from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import DIGITS_PX, write_digits
from PIL import Image
from pydantic import ValidationError
from torch import tensor

from ptychoflow.acquisition.classification.image_folder import read_image_folder
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.classification.settings import Sharding
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.classification.case import PLAIN, ClassificationCase, all_cases
from ptychoflow.workflow.experiments.classification.experiment import Classification
from ptychoflow.workflow.experiments.classification.plain import Reservoir
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.classification.targets import targets
from ptychoflow.workflow.experiments.configuration import load_experiment, preset_names
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.results import Results

CONFIG = f"""
[images]
tasks = 2
channels = 1
stored_px = {DIGITS_PX}
image_px = {DIGITS_PX}
least_crop_area = 1.0
workers = 0
corrupt_share = 0.02

[training]
batch_size = 10
epochs = 2
learning_rate = 0.05
buffer_share = 0.2
device = "cpu"

[training.model]
family = "small"
width = 4

[training.buffer]
representatives = 5
candidates = 5
transport = "tcp"

[experiment]
methods = ["incremental", "er"]
seeds = 1
ranks = 2
plain = true
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_digits(tmp_path_factory.mktemp("images") / "digits", classes=4, train=40, val=10)
    (folder / "train" / "0" / "000.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


def experiment(folder: Path, config: Path, *more: str) -> int:
    return run_command_line(["experiment", "classification", str(folder), "--config", str(config), *more])


def test_an_experiment_on_two_ranks_tells_its_figures_and_goes_on_where_it_was(
    digits: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    status = experiment(digits, config, "--json", str(file))
    results = json.loads(file.read_text())
    assert status == int(not all(target["met"] for target in results["targets"]))
    assert (results["preset"], results["classes"], results["tasks"]) == ("fashion-mnist", 4, 2)
    (er,), (incremental,), (plain,) = (
        results["strategies"]["er"],
        results["strategies"]["incremental"],
        plain_er(results),
    )
    for run in (er, incremental, plain):
        assert [len(row) for row in run["accuracy_top1"]] == [2, 2]
        assert run["average_top1"] == pytest.approx(sum(run["accuracy_top1"][1]) / 2)
        assert run["forgetting"] == pytest.approx(run["accuracy_top1"][0][0] - run["accuracy_top1"][1][0])
    assert (er["ranks"], er["buffer"]["capacity"], er["buffer"]["transport"]) == (2, 32, "tcp")
    assert incremental["samples"] == 2 * (79 + 80), "the corrupt image is left out in every epoch"
    assert er["samples"] > incremental["samples"]
    assert plain["samples"] > 2 * (79 + 80)
    assert {target["name"] for target in results["targets"]} == {
        "er_gain_over_incremental",
        "er_mean_over_plain_least",
        "er_time_over_cost_of_its_samples",
    }
    assert (tmp_path / "results-epochs.png").stat().st_size > 1000
    assert "after the last task" in capsys.readouterr().out

    assert experiment(digits, config, "--json", str(file), "--resume") == status
    assert json.loads(file.read_text())["strategies"] == results["strategies"], "nothing was trained again"


SMALL = ("training.epochs=1", 'experiment.methods=["incremental"]')


def changed(*changes: str) -> list[str]:
    return [part for change in (*SMALL, *changes) for part in ("--set", change)]


def test_what_is_no_ordinary_file_gets_the_results_once_and_nothing_beside_it(
    digits: Path, config: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(pipe.read_text()), daemon=True)
    reader.start()
    changes = changed("experiment.ranks=1", "experiment.plain=false", "experiment.methods=['er']", "training.epochs=1")
    assert experiment(digits, config, "--json", str(pipe), *changes) in (0, 1)
    reader.join(20)
    assert len(json.loads(said[0])["strategies"]["er"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", config.name}


def test_on_other_ranks_only_what_depends_on_them_is_trained_again(digits: Path, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    experiment(digits, config, "--json", str(file), *changed("experiment.ranks=1"))
    first = json.loads(file.read_text())
    experiment(digits, config, "--json", str(file), "--resume", *changed("experiment.ranks=2"))
    found = json.loads(file.read_text())
    assert found["strategies"] == first["strategies"]
    for method, runs in found["plain"].items():
        assert runs[:1] == first["plain"][method]
        assert [run["ranks"] for run in runs] == [1, 2]
        assert runs[0]["steps"] == 2 * runs[1]["steps"], "each has a result of its own"


def test_what_was_done_before_a_kill_keeps_the_ranks_that_it_was_trained_on(
    digits: Path, config: Path, tmp_path: Path
) -> None:
    """The process was killed when the ranks were done, before it took their figures into the results."""
    file = tmp_path / "results.json"
    changes = changed("experiment.ranks=1", "experiment.plain=false")
    experiment(digits, config, "--json", str(file), *changes)
    trained = json.loads(file.read_text())
    (run,) = trained["strategies"]["incremental"]
    loaded = load_experiment(
        ClassificationExperiment,
        "classification",
        preset="fashion-mnist",
        file=config,
        assignments=changes[1::2],
        options={"images": {"folder": str(digits)}},
    )
    (case,) = all_cases(loaded)
    folder = CaseFolder(tmp_path / "results-checkpoints" / case.name)
    folder.begin(case)
    folder.finish({name: value for name, value in run.items() if name not in case.parameters()})
    file.write_text(json.dumps(trained | {"strategies": {}}))

    changes = changed("experiment.ranks=2", "experiment.plain=false")
    experiment(digits, config, "--json", str(file), "--resume", *changes)
    assert json.loads(file.read_text())["strategies"] == trained["strategies"]


def test_a_training_that_is_done_and_has_lost_what_it_was_trained_with_is_told(tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text("{")
    with pytest.raises(UserError, match="remove the folder of this training"):
        CaseFolder(tmp_path).case(ClassificationCase)


def test_an_experiment_begun_anew_forgets_trainings_that_it_no_longer_asks_for(
    digits: Path, config: Path, tmp_path: Path
) -> None:
    earlier = CaseFolder(tmp_path / "results-checkpoints" / "plain-er-seed-0-ranks-7")
    (case,) = all_cases(ClassificationExperiment.model_validate({"experiment": {"methods": ["er"], "seeds": 1}}))
    earlier.begin(case)
    changes = changed("images.corrupt_share=0.001", "experiment.plain=false", "experiment.ranks=1")
    assert experiment(digits, config, "--json", str(tmp_path / "results.json"), *changes) == USER_ERROR_STATUS
    assert not earlier.path.exists()


def plain_er(results: dict[str, Any]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = results["plain"]["er"]
    return runs


def test_results_of_another_configuration_are_not_gone_on_from(
    digits: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_text("{}")
    assert experiment(digits, config, "--json", str(file), "--resume") == USER_ERROR_STATUS
    assert "holds results of another configuration" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["added", "renamed"])
def test_results_of_other_images_are_not_gone_on_from(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """Methods would be compared on different data; where the folder lies is of no matter."""
    images, file = write_digits(tmp_path / "images", classes=4, train=10, val=2), tmp_path / "results.json"
    begun_results(images, config, file).begin()
    images = images.rename(tmp_path / "elsewhere")
    begun_results(images, config, file).take_over()
    first = images / "train" / "0" / "000.png"
    shutil.copy(first, first.with_name("z.png"))
    if change == "renamed":
        first.unlink()
    assert experiment(images, config, "--json", str(file), "--resume") == USER_ERROR_STATUS
    asked = "images, file_names" if change == "added" else "file_names"
    assert f"holds results of another configuration, with other {asked}; name another file" in capsys.readouterr().err


def loaded_experiment(images: Path, config: Path) -> ClassificationExperiment:
    return load_experiment(
        ClassificationExperiment,
        "classification",
        preset="fashion-mnist",
        file=config,
        assignments=(),
        options={"images": {"folder": str(images)}},
    )


def begun_results(images: Path, config: Path, file: Path) -> Results:
    folder = file.with_name("results-checkpoints")
    return Results(
        Classification(loaded_experiment(images, config), folder=folder, json_file=file),
        preset="fashion-mnist",
        file=file,
    )


def test_a_mistake_in_a_rank_is_one_line(digits: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["images.corrupt_share=0.001", "experiment.plain=false", "experiment.ranks=1"]
    status = experiment(digits, config, *(part for change in changes for part in ("--set", change)))
    assert status == USER_ERROR_STATUS
    assert "1 of 160 images cannot be read, more than images.corrupt_share = 0.001 allows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("images.tasks=5", "images.tasks is 5, but there are only 4 classes"),
        (
            "experiment.methods=[] experiment.plain=false",
            "no training is asked for: name methods in experiment.methods",
        ),
        ("images.folder=nowhere", "nowhere/train cannot be listed"),
        ("training.epoch=3", "did you mean training.epochs?"),
        ("images.image_px=9", "image_px must not be larger than stored_px"),
        ("training.optimizer.accumulate=2", "set training.optimizer.accumulate to 1"),
        ("training.finish_s=5", "only methods that rehearse learn: set it to 0"),
        ("training.buffer.capacity_bytes=10000", "set training.buffer_share in place of"),
        ("training.buffer_share=0.04", "of 160 training images is a buffer of 6, but er on 2 ranks needs room for 8"),
        ("experiment.buffer_shares=[0.2,0.01]", "experiment.buffer_shares = 0.01 of 160 training images"),
        ("experiment.representatives=[33]", "lower experiment.representatives or the ranks"),
        ("experiment.rank_counts=[9]", "er on 9 ranks needs room for 36"),
        (
            'experiment.methods=["derpp_two_draws"] training.buffer.representatives=17',
            "derpp_two_draws on 2 ranks needs room for 34",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    digits: Path, config: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experiment", "classification", "--config", str(config), "--set", f"images.folder={digits}"]
    assert run_command_line([*command, *(part for one in change.split(" ") for part in ("--set", one))]) == (
        USER_ERROR_STATUS
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("preset", preset_names("classification"))
def test_presets_are_those_of_the_thesis_and_a_small_one(preset: str) -> None:
    config = load_experiment(
        ClassificationExperiment, "classification", preset=preset, file=None, assignments=(), options={}
    )
    if preset.startswith("thesis"):
        assert (config.training.batch_size, config.training.buffer.representatives) == (56, 7)
        assert (config.images.tasks, config.training.epochs, config.training.buffer_share) == (4, 30, 0.3)


def test_sweeps_change_one_thing_at_a_time() -> None:
    config = load_experiment(
        ClassificationExperiment,
        "classification",
        preset="fashion-mnist",
        file=None,
        assignments=["experiment.seeds=1", "experiment.compare_draws=true", "experiment.methods=[]"],
        options={"experiment": {"buffer_shares": [0.1, 0.2], "representatives": [8], "rank_counts": [4]}},
    )
    share, wider, fewer, ranks, apart, local = all_cases(config)
    assert [case.buffer_share for case in (share, wider)] == [0.1, 0.2]
    assert (fewer.representatives, fewer.buffer_share) == (8, 0.05)
    assert (ranks.ranks, fewer.ranks) == (4, 2)
    assert (apart.sharding, apart.transport) == (Sharding.CLASSES, "auto")
    assert (local.sharding, local.transport) == (Sharding.CLASSES, "local")
    assert local.own_training(training_set=1000).buffer.capacity == 50


def test_a_sweep_over_shares_of_the_buffer_is_refused_where_bytes_would_replace_them() -> None:
    with pytest.raises(ValidationError, match=r"set training\.buffer_share in place of"):
        ClassificationExperiment.model_validate(
            {"training": {"buffer": {"capacity_bytes": 10_000}}, "experiment": {"buffer_shares": [0.1, 0.2]}}
        )


def test_what_is_asked_for_twice_is_counted_once(digits: Path, config: Path, tmp_path: Path) -> None:
    """All trainings were done when the process that asked for them was killed."""
    file = tmp_path / "results.json"
    begun_results(digits, config, file).begin()
    accuracies = {"average_top1": 0.5, "average_top5": 0.5, "forgetting": 0.0, "seconds": 1.0}
    for case in all_cases(loaded_experiment(digits, config)):
        folder = CaseFolder(tmp_path / "results-checkpoints" / case.name)
        folder.begin(case)
        folder.finish({**accuracies, "epochs": [accuracies], "breakdown_ms": {"train": 1.0}})
    twice = ["--set", 'experiment.methods=["incremental", "er", "er"]']
    assert experiment(digits, config, "--json", str(file), "--resume", *twice) in (0, 1)
    assert [run["seed"] for run in json.loads(file.read_text())["strategies"]["er"]] == [0]


def test_targets_compare_means_of_the_same_run() -> None:
    config = load_experiment(
        ClassificationExperiment, "classification", preset="fashion-mnist", file=None, assignments=(), options={}
    )
    content: dict[str, Any] = {
        "strategies": {
            "incremental": [{"average_top1": 0.2, "seconds": 10.0}],
            "er": [
                {"ranks": 2, "average_top1": 0.7, "seconds": 22.0},
                {"ranks": 2, "average_top1": 0.8, "seconds": 26.0},
            ],
        },
        "plain": {"er": [{"ranks": ranks, "average_top1": top1} for ranks, top1 in ((2, 0.76), (2, 0.74), (1, 0.5))]},
    }
    found = {target["name"]: (target["value"], target["met"]) for target in targets(content, config)}
    assert found["er_gain_over_incremental"] == (pytest.approx(3.75), True)
    assert found["er_mean_over_plain_least"] == (pytest.approx(0.75 / 0.74), True)
    assert found["er_time_over_cost_of_its_samples"] == (pytest.approx(1.2), False)


@pytest.mark.parametrize(("reached", "met"), [(0.5, True), (0.0, False)])
def test_results_beside_a_training_that_got_nothing_right_are_kept(
    digits: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reached: float, met: bool
) -> None:
    results = begun_results(digits, config, tmp_path / "results.json")
    cases = all_cases(loaded_experiment(digits, config))
    for case in cases:
        top1 = 0.0 if case.method is Method.INCREMENTAL or case.part == PLAIN else reached
        results.add(case, {"average_top1": top1, "average_top5": top1, "forgetting": 0.0, "seconds": 1.0})
    found = {target["name"]: target for target in json.loads((tmp_path / "results.json").read_text())["targets"]}
    for name in ("er_gain_over_incremental", "er_mean_over_plain_least"):
        assert (found[name]["value"], found[name]["met"]) == (None, met)
    Classification(loaded_experiment(digits, config), folder=tmp_path, json_file=None).table(results.content).print()
    assert f"target {'met' if met else 'missed'}: er_gain_over_incremental = undefined" in capsys.readouterr().out


def test_the_plain_reservoir_keeps_a_uniform_part() -> None:
    kept = np.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, seed=seed)
        for number in range(20):
            reservoir.add((tensor(number), tensor(0), tensor(0)))
        for item in reservoir.items:
            kept[int(item[0])] += 1
    # each count is binomial(2000, 1/4): beyond 5 standard deviations with p < 2e-5 over all 20
    assert np.abs(kept - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def idx_files(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "idx").mkdir()
    for prefix, count in (("train", 30), ("t10k", 10)):
        write_idx(tmp_path / "idx" / f"{prefix}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / "idx" / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return tmp_path / "idx"


def test_fashion_mnist_becomes_a_folder_of_images(
    idx_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_command_line(["fashion-mnist", str(out), "--source", str(idx_files)]) == 0
    assert "30 images in train, 10 images in val" in capsys.readouterr().out
    folder = read_image_folder(out)
    assert len(folder.classes) == 10
    assert [len(folder.train), len(folder.val)] == [30, 10]
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "train" / "3-dress" / "00013.png")), pixels[13])


def test_fewer_images_per_class_can_be_taken(idx_files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_command_line(["fashion-mnist", str(out), "--source", str(idx_files), "--per-class", "2"]) == 0
    folder = read_image_folder(out)
    assert [len(folder.train), len(folder.val)] == [20, 10]


def test_files_that_are_not_fashion_mnist_are_named(
    idx_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fashion-mnist", str(tmp_path / "out"), "--source", str(idx_files)]
    images = idx_files / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(b"something else"))
    assert run_command_line(command) == USER_ERROR_STATUS
    assert "is not an IDX file of unsigned bytes in 3 dimensions" in capsys.readouterr().err
    images.unlink()
    assert run_command_line(command) == USER_ERROR_STATUS
    assert "install Debian's package dataset-fashion-mnist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(40) % 10, "t10k-labels-idx1-ubyte.gz has 40 labels, but there are 10 images"),
        (np.arange(9) % 10, "has 9 labels, but there are 10 images beside it: take both from the same data set"),
        (np.arange(10) + 37, "has labels up to 46, those of Fashion-MNIST end with 9"),
    ],
    ids=["more", "fewer", "others"],
)
def test_labels_that_are_not_those_of_the_images_are_refused(
    idx_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: np.ndarray, message: str
) -> None:
    write_idx(idx_files / "t10k-labels-idx1-ubyte.gz", labels)
    assert run_command_line(["fashion-mnist", str(tmp_path / "out"), "--source", str(idx_files)]) == USER_ERROR_STATUS
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
