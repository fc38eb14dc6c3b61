"""Configuration: presets, layers, and the one line that every mistake gets."""

from pathlib import Path
from typing import Any

import pytest

from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import (
    ClassificationConfig,
    load_config,
    load_scan_config,
    option_table,
    write_config,
)
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.configuration.presets import DATA_VARIABLE, MEASURED_SCAN, preset_names


@pytest.fixture
def measured_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    scan = tmp_path / "data" / MEASURED_SCAN
    scan.parent.mkdir()
    scan.touch()
    monkeypatch.setenv(DATA_VARIABLE, str(scan.parent))
    return scan


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


def mistake(*assignments: str, preset: str | None = "simulated", file: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(preset, file, assignments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["demo-simulated", "monitored", "simulated", "thesis-ptychography"])
def test_presets_are_valid(name: str) -> None:
    assert isinstance(load_config(name).source, SimulationSettings)


def test_the_thesis_preset_is_the_thesis() -> None:
    config = load_config("thesis-ptychography")
    assert isinstance(config.source, SimulationSettings)
    assert (config.source.perspectives, config.source.frames_per_perspective) == (157, 950)
    buffer = config.trainer.buffer
    assert (config.trainer.batch_size, buffer.representatives, buffer.candidates) == (16, 24, 14)
    assert config.trainer.schedule.kind == "cyclic"


def test_the_monitored_preset_changes_its_specimen_and_has_a_threshold() -> None:
    config = load_config("monitored")
    assert isinstance(config.source, SimulationSettings)
    assert len({phase.kind for phase in config.source.specimens}) == 2
    assert config.acquisition.regime.automatic


def test_the_demo_replays_measured_data_where_there_are_some(measured_data: Path) -> None:
    source = load_config("demo").source
    assert isinstance(source, ReplaySettings)
    assert source.path == measured_data


@pytest.mark.usefixtures("no_data")
def test_the_demo_simulates_where_there_are_none() -> None:
    assert isinstance(load_config("demo").source, SimulationSettings)


@pytest.mark.usefixtures("no_data")
def test_the_measured_demo_says_where_its_data_should_be() -> None:
    assert DATA_VARIABLE in mistake(preset="demo-measured")


@pytest.mark.parametrize(
    ("assignments", "options"),
    [
        (["source.path=mine.h5"], {}),
        ([], {"source": {"kind": "replay", "path": "mine.h5"}}),
        (["source.kind=simulation"], {}),
    ],
)
def test_a_preset_does_not_ask_for_a_scan_that_was_replaced(assignments: list[str], options: dict[str, Any]) -> None:
    config = load_config("demo-measured", assignments=assignments, options=options)
    assert config.source.kind == "simulation" or config.source.path == Path("mine.h5")
    assert config.trainer.batch_size == 12, "the rest of the preset counts"


def test_an_unknown_preset_is_told_the_presets() -> None:
    text = mistake(preset="dmeo")
    assert "'dmeo'" in text
    assert all(name in text for name in preset_names())


def test_options_win_over_assignments_over_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[trainer]\nbatch_size = 7\nlearning_rate = 0.5\n[run]\nname = "from-file"\nseed = 4')
    config = load_config(
        "simulated", file, ["trainer.learning_rate=0.25", "run.name=from-set"], options={"run": {"name": "from-option"}}
    )
    assert config.trainer.ranks == 2
    assert (config.trainer.batch_size, config.trainer.learning_rate) == (7, 0.25)
    assert (config.run.name, config.run.seed) == ("from-option", 4)


def test_a_scan_file_replaces_the_presets_simulation() -> None:
    config = load_config("simulated", options=option_table(source__kind="replay", source__path="scan.cxi"))
    assert config.source == ReplaySettings(path=Path("scan.cxi"))


def test_options_that_were_not_given_set_nothing() -> None:
    assert option_table(a__x=1, a__y=None, b__z=None, a__w=False) == {"a": {"x": 1, "w": False}}


def test_a_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config("simulated", assignments=["network.frames_port=5000", "source.probe.kind=zone_plate"])
    write_config(config, tmp_path / "config.toml")
    assert load_config(file=tmp_path / "config.toml") == config


def test_an_unknown_key_is_told_its_origin_and_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[trainer]\nbatchsize = 16")
    text = mistake(file=file)
    assert text == f"unknown setting trainer.batchsize (from {file}); did you mean trainer.batch_size?"


def test_an_unknown_section_is_told_the_nearest_one() -> None:
    assert mistake("trianer.batch_size=16") == "unknown setting trianer (from --set); did you mean trainer?"


def test_an_unknown_key_without_a_near_one_is_told_all() -> None:
    text = mistake("run.zzz=1")
    assert text.startswith("unknown setting run.zzz (from --set); valid here: ")
    assert "seed" in text


def test_an_unknown_nested_key_is_found() -> None:
    assert "did you mean trainer.buffer.capacity?" in mistake("trainer.buffer.capacty=3")


def test_an_unknown_key_of_a_source_is_compared_with_that_kind_only() -> None:
    assert "did you mean source.perspectives?" in mistake("source.perspectivs=3")
    text = mistake("source.kind=replay", "source.path=x", "source.perspectives=3")
    assert "unknown setting source.perspectives" in text
    assert "preprocess" in text
    assert "frames_per_perspective" not in text


def test_a_value_of_the_wrong_type_is_shown_with_its_key() -> None:
    text = mistake("trainer.batch_size=many")
    assert text.startswith("setting trainer.batch_size = 'many' (from --set) is wrong: ")
    assert "integer" in text


def test_a_value_out_of_range_names_the_preset_or_option() -> None:
    assert mistake("trainer.ranks=0").startswith("setting trainer.ranks = 0 (from --set) is wrong: ")


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "a\n"])
def test_what_a_name_may_be_is_said_in_words(name: str) -> None:
    with pytest.raises(
        UserError, match=r"is wrong: use letters, digits, .* and begin with a letter or a digit"
    ) as error:
        load_config("simulated", options=option_table(run__name=name))
    assert "pattern" not in str(error.value)


def test_a_choice_lists_the_choices() -> None:
    text = mistake("trainer.pace=slow")
    assert "'stream'" in text
    assert "'continuous'" in text


def test_a_value_that_may_be_one_of_several_is_named_by_its_key_alone() -> None:
    text = mistake("source.kind=replay", "source.path=scan.h5", "source.positions.unit=furlong", preset=None)
    messages = text.split("; ")
    assert len(messages) == 2
    assert all(one.startswith("setting source.positions.unit = 'furlong' (from --set) is wrong: ") for one in messages)
    assert messages[1].endswith("'px'")


def test_a_value_in_place_of_a_section_is_named() -> None:
    assert "setting trainer.buffer = 3 (from --set) is wrong" in mistake("trainer.buffer=3")


def test_a_missing_key_says_how_to_give_it() -> None:
    text = mistake("source.kind=replay", preset=None)
    assert text == "setting source.path is missing: give it with --set source.path=... or in a --config file"


def test_a_list_that_is_too_short_is_named_as_a_whole() -> None:
    text = mistake("retrieval.target_shape_px=[1]")
    assert text == "setting retrieval.target_shape_px = [1] (from --set) is wrong: give more values"


def test_a_missing_section_is_asked_for_by_its_keys() -> None:
    live = ("source.kind=live", "source.frames.kind=dectris-v2", "source.frames.host=a")
    text = mistake(*live, preset=None)
    keys = " ".join(f"--set source.join.{key}=..." for key in ("first_frame", "first_sample", "samples_per_frame"))
    assert text == f"section [source.join] is missing: give {keys} or write it in a --config file"
    text = mistake("source.kind=live", preset=None)
    assert "section [source.frames] is missing: give --set source.frames.kind=... or write it" in text
    frames = ("source.frames.kind=ntndarray", "source.frames.pv=a", "source.frames.number_from=unique_id")
    assert "[source.frames.series] is missing: give --set source.frames.series.by=... or" in mistake(
        "source.kind=live", *frames, preset=None
    )


def test_a_source_without_kind_or_of_unknown_kind_is_told() -> None:
    assert mistake("source.path=x", preset=None).startswith("setting source.kind is missing (from --set)")
    text = mistake("source.kind=relpay")
    kinds = "'replay', 'simulation', 'live', 'images'"
    assert text == f"setting source.kind = 'relpay' (from --set) is wrong: use one of {kinds}"


def test_a_check_across_keys_keeps_its_words() -> None:
    text = mistake("trainer.batch_size=16", "trainer.queue_samples=16")
    assert text == "setting trainer (from --set) is wrong: queue_samples must be at least twice batch_size"


def test_a_port_that_no_host_has_is_refused() -> None:
    assert mistake("network.frames_port=70000").startswith("setting network.frames_port = 70000 (from --set) is wrong")
    assert mistake("dashboard.port=-1").startswith("setting dashboard.port = -1 (from --set) is wrong")


def test_every_mistake_is_in_the_line() -> None:
    text = mistake("trainer.ranks=0", "run.sed=1")
    assert "trainer.ranks" in text
    assert "did you mean run.seed?" in text


def test_a_name_that_is_no_folder_name_is_refused() -> None:
    assert mistake("run.name=../elsewhere").startswith("setting run.name = '../elsewhere'")


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        load_config("simulated", assignments=["run.directory=~/runs"]).run.context().directory.parent
        == tmp_path / "runs"
    )
    options = {"source": {"kind": "replay", "path": ["~/a.h5", "b~.h5"]}}
    source = load_scan_config(options=options, assignments=["source.preprocess.mask=~/mask.npy"]).source
    assert isinstance(source, ReplaySettings)
    assert source.paths == (tmp_path / "a.h5", Path("b~.h5"))
    assert source.preprocess.mask == tmp_path / "mask.npy"
    assert "~nobody-of-this-name" in mistake("run.directory=~nobody-of-this-name/runs")


def test_without_anything_to_scan_the_choices_are_told() -> None:
    text = mistake(preset=None)
    assert "--preset" in text
    assert "scan file" in text


IMAGES = ("source.kind=images", "source.folder=here", "source.stored_px=28", "trainer.image_px=28")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("trainer.model.levels=3", "unknown setting trainer.model.levels (from --set)"),
        ("acquisition.record=true", "unknown setting acquisition.record (from --set)"),
        ("edge.min_coverage=3", "unknown setting edge.min_coverage (from --set)"),
        ("source.stored_px=8", "trainer.image_px = 28 must not be larger than source.stored_px = 8"),
    ],
)
def test_a_run_on_images_has_settings_of_its_own(assignment: str, said: str) -> None:
    kept = [one for one in IMAGES if one.partition("=")[0] != assignment.partition("=")[0]]
    assert said in mistake(*kept, assignment, preset=None)


def test_the_pipeline_says_what_a_source_is_and_must_fit_it() -> None:
    config = load_config(assignments=IMAGES[1:], pipeline=PipelineName.CLASSIFICATION)
    assert isinstance(config, ClassificationConfig)
    with pytest.raises(UserError, match="not for ptychography"):
        load_config(assignments=IMAGES, pipeline=PipelineName.PTYCHOGRAPHY)
    with pytest.raises(UserError, match="not for ptychography"):
        load_scan_config(assignments=IMAGES)


def test_the_configuration_of_a_run_on_images_is_read_back_equal(tmp_path: Path) -> None:
    config = load_config("classification")
    write_config(config, tmp_path / "config.toml")
    assert load_config(file=tmp_path / "config.toml") == config


@pytest.mark.parametrize(("kind", "key"), [("images", "folder"), ("replay", "path")])
def test_a_path_that_cannot_be_written_into_a_configuration_is_refused(kind: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"source\.{key} = .* is no UTF-8, in which settings are kept: rename it"):
        load_config(options={"source": {"kind": kind, key: "k\udce4fer"}})
