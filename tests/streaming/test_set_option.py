"""Settings that people copy from a note into their shell arrive as they were meant."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ptychoflow.streaming.set_option import set_option

ROOT = Path(__file__).parents[2]
FOLDERS = ("acquisition", "streaming", "buffer", "trainer", "inference_edge", "dashboard", "workflow")
SUGGESTED = re.compile(r"--set ([\w.]+=[^'\s`\"]*)")
INTERPRETED = re.compile(r"[][{}*<>&|$~]")
VALUES = ["[41,26]", "16", "/scans/[1] of mine/it's.h5", '["/scans/*"]', "$HOME;~", "a (b)"]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_suggested_reaches_the_command_from_a_shell(tmp_path: Path, value: str) -> None:
    (tmp_path / "source.x=4").touch()  # what brackets that are not quoted stand for
    option = set_option("source.x", value)
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {option}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["--set", f"source.x={value}"]
    assert shlex.split(option) == ["--set", f"source.x={value}"]


def test_what_needs_no_quotes_has_none() -> None:
    assert set_option("trainer.batch_size", 16) == "--set trainer.batch_size=16"


def texts(source: str) -> list[str]:
    """Return what a module says, with what is put in left out."""
    return [
        "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        if isinstance(node, ast.JoinedStr)
        else str(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def test_no_text_suggests_what_a_shell_refuses() -> None:
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    suggested = {one: path for path in sources for text in texts(path.read_text()) for one in SUGGESTED.findall(text)}
    assert len(suggested) > 10
    assert [(one, path) for one, path in suggested.items() if INTERPRETED.search(one)] == []
