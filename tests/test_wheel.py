"""The wheel: what is in it, and that it works where nothing but PyTorch, NumPy and scikit-learn is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from distributions import files_of

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("acquisition", "buffer", "dashboard", "inference_edge", "streaming", "trainer", "workflow")
NEITHER_SOURCE_NOR_DATA = shutil.ignore_patterns("__pycache__", "*.pyc")


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command that sees nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PTYCHOFLOW"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that the build leaves nothing behind in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=NEITHER_SOURCE_NOR_DATA)
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", built, source, cwd=built)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which the wheel is installed, beside PyTorch, NumPy, scikit-learn and what these require.

    The latter are links into the environment of the tests, since they are large; nothing else of it is to be found.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for name, path in files_of("torch", "numpy", "scikit-learn").items():
        (site_packages / name).symlink_to(path)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def test_it_holds_one_package_with_all_its_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"ptychoflow"}
    assert "ptychoflow/py.typed" in names
    expected = {
        f"ptychoflow/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for kind in (
        "dashboard/static/",
        "workflow/configuration/presets/",
        "workflow/experiments/presets/",
        "workflow/templates/",
    ):
        assert any(name.startswith(f"ptychoflow/{kind}") for name in expected), kind
    assert expected <= names


def test_without_extras_it_requires_torch_and_numpy(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        required = re.findall(r"^Requires-Dist: ([\w-]+)([^\n]*)", archive.read(metadata).decode(), re.MULTILINE)
    assert {name for name, rest in required if "extra ==" not in rest} == {"torch", "numpy"}


def test_an_example_runs_where_it_is_installed(environment: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "digits.py", tmp_path)
    output = run(environment / "bin" / "python", "digits.py", cwd=tmp_path).stdout
    without, with_buffer = (float(score) for score in re.findall(r"([\d.]+)%", output))
    assert without < 30
    assert with_buffer > 80


def test_no_folder_is_a_package_by_itself(environment: Path, tmp_path: Path) -> None:
    ask = f"from importlib.util import find_spec; print([find_spec(name) for name in {FOLDERS}])"
    assert run(environment / "bin" / "python", "-c", ask, cwd=tmp_path).stdout == f"{[None] * len(FOLDERS)}\n"


def test_the_command_names_its_extra_in_one_line(environment: Path, tmp_path: Path) -> None:
    done = run(environment / "bin" / "ptychoflow", "run", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "ptychoflow[workflow]" in line
