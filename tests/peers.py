"""Environments of their own for programs that are not ours: what our sources and simulators are compared with."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TIME_LIMIT_S = 600.0
READY = ".ready"


def peer_python(*requirements: str) -> Path:
    """Return the Python of an environment with these packages; it is made once and kept for later runs.

    The calling test is skipped, saying why, where it cannot be made.
    """
    with _folder("environment", *requirements) as folder:
        python = folder / "bin" / "python"
        if not (folder / READY).exists():
            venv.create(folder, with_pip=True, clear=True)
            _run(python, "-m", "pip", "install", "--quiet", *requirements)
            (folder / READY).touch()
    return python


def peer_sources(requirement: str) -> Path:
    """Return the folder of a package's source distribution, with the recordings that its own tests use."""
    with _folder("sources", requirement) as folder:
        if not (folder / READY).exists():
            options = ("--no-deps", "--no-binary", ":all:", "--dest", str(folder))
            _run(Path(sys.executable), "-m", "pip", "download", "--quiet", *options, requirement)
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                if hasattr(tarfile, "data_filter"):  # not in the first Pythons 3.11
                    tar.extraction_filter = tarfile.data_filter
                tar.extractall(folder)  # pip has compared the archive's digest with the registry's
            (folder / READY).touch()
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


@contextmanager
def _folder(*what: str) -> Iterator[Path]:
    """Yield the folder that belongs to `what`, to one process at a time."""
    root = Path(os.environ.get("PTYCHOFLOW_PEERS", Path.home() / ".cache" / "ptychoflow-peers"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = root / hashlib.sha256("\n".join([version, *what]).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(
            [str(word) for word in command], check=True, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or "")[-300:] if isinstance(error.stderr, str) else ""
        pytest.skip(f"the environment of a peer cannot be made (is a package registry within reach?): {said}")
