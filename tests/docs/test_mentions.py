"""What the pages mention exists: commands, options, settings, presets, files, routes; and what exists is described."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from manual.commands import all_commands
from manual.rest import openapi
from manual.settings import keys_of
from pages import DOCS, ROOT, blocks, pages

import ptychoflow.buffer
from ptychoflow.acquisition.readers.dataset_map import DatasetMap
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import ClassificationConfig, Config
from ptychoflow.workflow.configuration.presets import preset_names
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.configuration import preset_names as experiment_presets
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment

WRITTEN = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SPAN = re.compile(r"(?<![`\w])`([^`\n]+)`(?!`)")
COMMANDS = all_commands()
KEYS = (
    keys_of(Config)
    | keys_of(ClassificationConfig)
    | keys_of(PtychographyExperiment)
    | keys_of(ClassificationExperiment)
)
SECTIONS = {key.rpartition(".")[0] for key in KEYS} | {key.partition(".")[0] for key in KEYS}
PRESETS = {*preset_names(), *experiment_presets("ptychography"), *experiment_presets("classification")}
FREE_TABLES = ("source.map_values.", "source.positions.")
"""Under these stand keys of a dataset map."""

each_page = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))


def spans(page: Path) -> Iterator[str]:
    """Yield the code in the text of a page, without what follows a role and without fenced blocks."""
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for found in SPAN.finditer(re.sub(r"\{[\w:]+\}`[^`]*`", "", text)):
        yield found[1]


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the command lines of ptychoflow on a page: in blocks, and in the text."""
    lines = [
        line
        for block in blocks(page)
        if block.language in {"sh", "bash"}
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    for line in [*lines, *spans(page)]:
        found = re.search(r"(?:^|\s|/)ptychoflow ([a-z].*)", line)
        if found:
            yield shlex.split(re.split(r"\s#\s|;", found[1])[0].replace("…", ""))


def find_command(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the command that a line begins with, by its name, and the rest of the line."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    return None


@each_page
def test_commands_and_their_options_exist(page):
    for words in command_lines(page):
        command = find_command(words)
        assert command is not None, f"{page.name}: there is no command {' '.join(words)}"
        name, rest = command
        known = {
            option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
            assert option in known | {"--help"}, f"{page.name}: ptychoflow {name} has no {option}"


@each_page
def test_keys_that_are_set_on_command_lines_exist(page):
    for words in command_lines(page):
        for option, value in itertools.pairwise(words):
            if option == "--set":
                assert is_key(value.partition("=")[0]), f"{page.name}: there is no setting {value}"
            if option == "--preset":
                assert value in PRESETS, f"{page.name}: there is no preset {value}"


def is_key(name: str) -> bool:
    return name in KEYS or name in SECTIONS or name.startswith(FREE_TABLES)


@pytest.mark.parametrize(
    "page", pages("how-to") + pages("tutorials") + pages("explanation"), ids=lambda page: page.stem
)
def test_settings_that_are_named_in_the_text_exist(page):
    for span in spans(page):
        name = re.match(r"(?:--set )?([a-z]\w*(?:\.\w+)+)(?:\s*=.*)?$", span)
        if name and name[1].partition(".")[0] in SECTIONS and not re.search(r"\.(h5|toml|py|jsonl?|html)$", name[1]):
            assert is_key(name[1]), f"{page.name}: there is no setting {name[1]}"


def leaves(table: dict, prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict) and f"{prefix}{name}" not in MAP_KEYS:
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for row in value:
                yield from leaves(row, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


MAP_KEYS = keys_of(DatasetMap)


@each_page
def test_keys_in_toml_exist(page):
    for block in blocks(page):
        if block.language == "toml":
            content = tomllib.loads(block.text)
            if "frames" in content:
                DatasetMap.model_validate(content)
                continue
            unknown = [key for key in leaves(content) if not is_key(key)]
            assert not unknown, f"{page.name}: {unknown}"


@each_page
def test_files_of_the_repository_that_are_named_exist(page):
    folders = "acquisition|buffer|dashboard|docs|examples|inference_edge|streaming|tests|trainer|workflow"
    for span in spans(page):
        if re.fullmatch(rf"(?:{folders})/[\w/.\-]*", span) and "_build" not in span:
            assert (ROOT / span).exists(), f"{page.name}: there is no {span}"


def test_classes_that_are_named_exist():
    sources = "".join(path.read_text() for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts)
    defined = set(re.findall(r"^class (\w+)|^(\w+) = ", sources, re.MULTILINE))
    imported = re.findall(r"^from torch\S* import (.+)$", sources, re.MULTILINE)
    known = {name for names in defined for name in names} | {name for names in imported for name in names.split(", ")}
    for page in WRITTEN:
        for span in spans(page):
            if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)+", span):
                assert span in known, f"{page.name}: there is no class {span}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_of_the_manual_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), f"{page}: {target}"


@each_page
def test_routes_that_are_named_exist(page):
    patterns = [re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) for path in openapi()["paths"]]
    patterns += ["/api/openapi\\.json"]
    for route in re.findall(r"(?:8421|`)(/api/[\w/.]+)", page.read_text()):
        assert any(re.fullmatch(pattern, route) for pattern in patterns), f"{page.name}: there is no route {route}"


def test_everything_that_the_buffer_exports_is_described():
    page = (DOCS / "reference" / "buffer.md").read_text()
    described = set(re.findall(r"^\.\. (?:autoclass|data):: (\w+)", page, re.MULTILINE))
    assert described == set(ptychoflow.buffer.__all__)


def test_everything_in_a_run_folder_is_described():
    page = (DOCS / "reference" / "run-folder.md").read_text()
    folder = RunFolder(Path("run"))
    paths = [value.fget(folder) for value in vars(RunFolder).values() if isinstance(value, property)]
    for path in (*(path for path in paths if isinstance(path, Path)), folder.log("edge").parent):
        assert re.search(rf"`{re.escape(path.name)}/?`", page), f"run-folder.md does not tell of {path.name}"


@pytest.mark.parametrize(
    "page",
    [
        "tutorials/your-scan-file.md",
        "how-to/add-a-reader.md",
        "tutorials/buffer-in-your-loop.md",
        "how-to/read-a-result.md",
    ],
)
def test_what_newcomers_look_for_is_one_click_from_the_front_page(page):
    assert f"]({page})" in (DOCS / "index.md").read_text()


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The ptychoflow developers"}]
    assert (citation["title"], citation["version"], citation["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    assert citation["message"]
