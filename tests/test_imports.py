"""The architecture: what each folder may import, and how long a module may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOT_PACKAGE = "ptychoflow"
MAX_LINES = 400
EVERYTHING = ("streaming", "buffer", "acquisition", "trainer", "inference_edge", "dashboard", "workflow")
ALLOWED = {
    "streaming": (),
    "buffer": (),
    "acquisition": ("streaming",),
    "trainer": ("streaming", "buffer", "acquisition"),
    "inference_edge": ("streaming", "acquisition", "trainer.models"),
    "dashboard": ("streaming",),
    "workflow": EVERYTHING,
}


def modules(root: Path) -> list[Path]:
    return sorted(path for folder in EVERYTHING for path in (root / folder).rglob("*.py"))


def imported_names(source: str) -> Iterator[str]:
    """Yield the dotted name of every import, wherever in the module it stands; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif _is_import_call(node):
            yield ast.literal_eval(node.args[0])


def _is_import_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in ("import_module", "__import__")
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def violations(root: Path) -> Iterator[str]:
    for path in modules(root):
        own = path.relative_to(root).parts[0]
        for name in imported_names(path.read_text(encoding="utf-8")):
            if not is_allowed(name, own):
                yield f"{path.relative_to(root)} imports {name}"


def is_allowed(name: str, own: str) -> bool:
    if name.startswith("."):
        return False
    root, _, name = name.partition(".")
    if root in EVERYTHING:
        return False  # the folders are packages of ptychoflow and nothing by themselves
    if root != ROOT_PACKAGE or not name:
        return True
    return any(name == package or name.startswith(f"{package}.") for package in (own, *ALLOWED[own]))


def test_nothing_imports_upwards() -> None:
    assert list(violations(ROOT)) == []


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("streaming", "import ptychoflow.acquisition.scan"),
        ("buffer", "from ptychoflow.streaming import errors"),
        ("acquisition", "from ptychoflow.trainer.models import ptychonn"),
        ("inference_edge", "from ptychoflow.trainer import service"),
        ("inference_edge", "from ptychoflow.trainer import models_elsewhere"),
        ("dashboard", "def late():\n    import ptychoflow.workflow.config"),
        ("trainer", "import importlib\nimportlib.import_module('ptychoflow.inference_edge.service')"),
        ("trainer", "from . import settings"),
        ("trainer", "from buffer import schema"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, folder: str, line: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "planted.py").write_text(line)
    assert len(list(violations(tmp_path))) == 1


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("inference_edge", "from ptychoflow.trainer import models"),
        ("inference_edge", "from ptychoflow.trainer.models.weights_file import read_weights"),
        ("workflow", "from ptychoflow.dashboard.server import serve_dashboard"),
        ("buffer", "from ptychoflow.buffer.schema import Schema\nimport numpy"),
    ],
)
def test_what_the_table_allows_is_accepted(tmp_path: Path, folder: str, line: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "planted.py").write_text(line)
    assert list(violations(tmp_path)) == []


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(ROOT)}
    assert len(lengths) > len(EVERYTHING), "no modules were found: is this test in the right place?"
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    "module", ["ptychoflow.workflow.launcher", "ptychoflow.acquisition.service", "ptychoflow.dashboard.server"]
)
def test_who_does_not_compute_with_pytorch_does_not_wait_for_it(module: str) -> None:
    """It takes longer to load than all the rest, and every command that reads a configuration would wait."""
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
