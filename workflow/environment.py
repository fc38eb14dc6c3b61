"""What a run ran on: versions, host, revision. Written beside the results, so that they can be understood later."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ptychoflow.streaming.device import available_processors

PACKAGES = (
    "ptychoflow",
    "numpy",
    "torch",
    "ptychi",
    "pyzmq",
    "msgspec",
    "h5py",
    "scikit-image",
    "pydantic",
    "ucxx-cu13",
)


def describe_environment() -> dict[str, Any]:
    """Return plain JSON values: time, command, host, processors, Python, package versions, git revision."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "platform": platform.platform(),
        "processors": available_processors(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name)) is not None},
        "git_revision": git_revision(Path(__file__).parent),
    }


def git_revision(folder: Path) -> str | None:
    """Return the commit of the checkout that holds `folder`, with `+changes` if it differs; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
