"""Layers of configuration: parsing, precedence, origins."""

from pathlib import Path

import pytest

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.layers import Layer, merge, parse_assignments, read_layer


def test_assignments_take_toml_values_and_bare_strings() -> None:
    layer = parse_assignments(
        [
            "trainer.batch_size=16",
            "trainer.rate = 1e-3",
            "a.flag=true",
            "a.list=[1, 2]",
            'a.quoted="x y"',
            "a.path=runs/one two.h5",
            "a.equals=b=c",
            "a.b.deep=1",
        ]
    )
    assert layer.values == {
        "trainer": {"batch_size": 16, "rate": 1e-3},
        "a": {
            "flag": True,
            "list": [1, 2],
            "quoted": "x y",
            "path": "runs/one two.h5",
            "equals": "b=c",
            "b": {"deep": 1},
        },
    }


@pytest.mark.parametrize("text", ["trainer", "=3", "trainer=3", "trainer.=3", ".x=3"])
def test_an_assignment_without_section_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"section\.key=value"):
        parse_assignments([text])


def test_assignments_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="contradicts"):
        parse_assignments(["a.b=1", "a.b.c=2"])


def test_later_layers_win_key_by_key_and_origins_follow() -> None:
    merged, origins = merge(
        [
            Layer("first", {"a": {"x": 1, "y": {"deep": 1, "kept": 2}}}),
            Layer("second", {"a": {"y": {"deep": 3}}, "b": {"z": 4}}),
        ]
    )
    assert merged == {"a": {"x": 1, "y": {"deep": 3, "kept": 2}}, "b": {"z": 4}}
    assert (origins["a.x"], origins["a.y.deep"], origins["a.y.kept"], origins["b.z"]) == (
        "first",
        "second",
        "first",
        "second",
    )


def test_a_section_of_another_kind_replaces_the_one_before() -> None:
    preset = Layer("preset", {"source": {"kind": "simulation", "perspectives": 3}})
    same, _ = merge([preset, Layer("file", {"source": {"kind": "simulation", "seed": 1}})])
    other, _ = merge([preset, Layer("file", {"source": {"kind": "replay", "path": "x.cxi"}})])
    assert same["source"] == {"kind": "simulation", "perspectives": 3, "seed": 1}
    assert other["source"] == {"kind": "replay", "path": "x.cxi"}


def test_what_applies_to_the_kind_that_is_named_last_is_kept() -> None:
    preset = Layer("preset", {"source": {"kind": "simulation", "perspectives": 3}})
    assignments = parse_assignments(["source.preprocess.flip_x=true"])
    options = Layer("the command line", {"source": {"kind": "replay", "path": "x.cxi"}})
    merged, origins = merge([preset, assignments, options])
    assert merged["source"] == {"kind": "replay", "path": "x.cxi", "preprocess": {"flip_x": True}}
    assert "source.perspectives" not in origins


def test_merging_leaves_the_layers_as_they_were() -> None:
    first = Layer("first", {"a": {"x": {"y": 1}}})
    merge([first, Layer("second", {"a": {"x": {"y": 2}}})])
    assert first.values == {"a": {"x": {"y": 1}}}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[run\n")
    with pytest.raises(UserError, match=r"missing\.toml does not exist"):
        read_layer(tmp_path / "missing.toml")
    with pytest.raises(UserError, match=r"broken\.toml is not valid TOML: .*line 1"):
        read_layer(broken)
    with pytest.raises(UserError, match="cannot be read"):
        read_layer(tmp_path)
