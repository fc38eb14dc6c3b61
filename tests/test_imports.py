"""The architecture: what each folder may import, what lies above what inside of some, and no circles."""

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOT_PACKAGE = "ptychoflow"
EVERYTHING = ("streaming", "buffer", "acquisition", "trainer", "inference_edge", "dashboard", "workflow")
ALLOWED = {
    "streaming": (),
    "buffer": (),
    "acquisition": ("streaming",),
    "trainer": ("streaming", "buffer", "acquisition"),
    "inference_edge": ("streaming", "trainer.models"),
    "dashboard": ("streaming",),
    "workflow": EVERYTHING,
}
WITHOUT_CIRCLES = ("streaming", "buffer", "acquisition", "trainer", "inference_edge", "workflow")
BUFFER_ROOMS = (
    ("names", "schema", "index", "capacity", "generators", "free_rows", "statistics", "membership", "work"),
    ("policies", "memory", "sampling", "options", "resharding"),
    ("cuda", "item_update", "offer_checks"),
    ("outputs", "candidate_writer"),
    ("local_store",),
    ("transport", "checkpoint"),
    ("draws",),
    ("background",),
    ("rehearsal",),
    ("loader",),
)
TRAINER_ROOMS = (
    ("models", "continual_metrics", "meeting", "network_interface"),
    ("settings",),
    ("device",),
    ("checkpoints",),
    ("interface",),
    ("strategies",),
    ("training",),
    ("online",),
    ("pipelines.ptychography", "pipelines.classification"),
    ("pipelines",),
    ("service",),
)
WORKFLOW_ROOMS = (
    ("interruption",),
    ("exit_status", "former_names", "logs", "environment", "drawing", "target", "progress_bar", "summary"),
    ("configuration", "contained", "progress", "json_results", "loss_plot", "step_plot"),
    ("judged_scores", "monitoring_spans"),
    ("quality_plot", "residual_plot"),
    ("report",),
    ("results",),
    ("launching",),
    ("experiments", "benchmarks", "hand_over", "doctor"),
    ("commands",),
    ("app",),
    ("cli",),
)
ROOMS = {"buffer": BUFFER_ROOMS, "trainer": TRAINER_ROOMS, "workflow": WORKFLOW_ROOMS}
"""From the lowest to the highest; a room imports from lower rows alone."""


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


def import_graph(root: Path, folder: str) -> dict[str, set[str]]:
    """Return what every module of a folder imports of that folder, by names within it.

    That is wherever the import stands, in a function or for types alone; and who imports a module loads the packages
    around it as well.
    """
    paths = {module_name(path.relative_to(root / folder)): path for path in (root / folder).rglob("*.py")}
    return {
        module: set(imported_modules(module, path.read_text(encoding="utf-8"), f"{ROOT_PACKAGE}.{folder}.", paths))
        for module, path in paths.items()
    }


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(module: str, source: str, prefix: str, known: Container[str]) -> Iterator[str]:
    for name in imported_names(source):
        if not name.startswith(prefix):
            continue
        parts = name.removeprefix(prefix).split(".")
        if ".".join(parts) not in known:
            parts.pop()  # a name that a module defines; it may be one of the packages around this module
            yield ".".join(parts)
        for length in range(1, len(parts) + 1):
            loaded = ".".join(parts[:length])
            if not f"{module}.".startswith(f"{loaded}."):
                yield loaded


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """Return the modules that import themselves by way of others."""
    return {module for module in graph if module in reachable(graph, module)}


def reachable(graph: dict[str, set[str]], module: str) -> set[str]:
    found: set[str] = set()
    waiting = [*graph[module]]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += graph[one]
    return found


def room(folder: str, module: str) -> tuple[int, str]:
    """Return the row and the name of the room of a module of the folder; the narrowest one counts."""
    rooms = [(row, name) for row, names in enumerate(ROOMS[folder]) for name in names]
    return max((one for one in rooms if f"{module}.".startswith(f"{one[1]}.")), key=lambda one: len(one[1]))


def upward_imports(root: Path, folder: str) -> Iterator[str]:
    for module, imported in import_graph(root, folder).items():
        for other in imported - {""} if module else ():
            (row, name), (other_row, other_name) = room(folder, module), room(folder, other)
            if name != other_name and other_row >= row:
                yield f"{module} imports {other}"


@pytest.mark.parametrize("folder", WITHOUT_CIRCLES)
def test_no_modules_import_each_other_in_a_circle(folder: str) -> None:
    graph = import_graph(ROOT, folder)
    assert len(graph) > 1, "no modules were found: is this test in the right place?"
    assert in_circles(graph) == set()


@pytest.mark.parametrize("folder", ROOMS)
def test_inside_a_folder_nothing_imports_upwards(folder: str) -> None:
    assert list(upward_imports(ROOT, folder)) == []


@pytest.mark.parametrize(
    "files",
    [
        {"first": "import ptychoflow.trainer.second", "second": "def late():\n    import ptychoflow.trainer.first"},
        {
            "first": "if TYPE_CHECKING:\n    from ptychoflow.trainer.second import Name",
            "second": "from ptychoflow.trainer import first",
        },
        {
            "package/__init__": "from ptychoflow.trainer.outside import name",
            "package/inside": "",
            "outside": "from ptychoflow.trainer.package.inside import name",
        },
        {"__init__": "from ptychoflow.trainer.first import name", "first": "from ptychoflow.trainer import name"},
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = tmp_path / "trainer" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert len(in_circles(import_graph(tmp_path, "trainer"))) == 2


@pytest.mark.parametrize(
    ("module", "line", "upwards"),
    [
        ("strategies/er", "from ptychoflow.trainer.training.learner import Learner", True),
        ("pipelines/ptychography/recipe", "from ptychoflow.trainer.pipelines.classification import pipeline", True),
        ("training/learner", "from ptychoflow.trainer.strategies.er import ExperienceReplay", False),
        ("online/start", "from ptychoflow.trainer.online.receiver import SampleReceiver", False),
    ],
)
def test_a_planted_import_of_a_higher_room_is_found(tmp_path: Path, module: str, line: str, *, upwards: bool) -> None:
    others = (
        "training/learner",
        "strategies/er",
        "online/receiver",
        "pipelines/classification/pipeline",
    )
    for name in (*others, module):
        path = tmp_path / "trainer" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(line if name == module else "")
    assert bool(list(upward_imports(tmp_path, "trainer"))) == upwards


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
        ("dashboard", "def late():\n    import ptychoflow.workflow.configuration.config"),
        ("trainer", "import importlib\nimportlib.import_module('ptychoflow.inference_edge.ptychography.service')"),
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


@pytest.mark.parametrize(
    "module",
    [
        "ptychoflow.workflow.launching.launcher",
        "ptychoflow.workflow.launching.resuming",
        "ptychoflow.acquisition.ptychography.service",
        "ptychoflow.acquisition.classification.service",
        "ptychoflow.dashboard.server",
    ],
)
def test_who_does_not_compute_with_pytorch_does_not_wait_for_it(module: str) -> None:
    """It takes longer to load than all the rest, and every command that reads a configuration would wait."""
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
