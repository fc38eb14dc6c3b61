"""What an installed distribution consists of."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def files_of(*distributions: str) -> dict[str, Path]:
    """Return the top-level files and folders of these distributions and of all that they require, by name."""
    found: dict[str, Path] = {}
    known, waiting = set[str](), list(distributions)
    while waiting:
        one = waiting.pop()
        if one in known:
            continue
        known.add(one)
        try:
            distribution = metadata.distribution(one)
        except metadata.PackageNotFoundError:  # not for this platform
            continue
        names = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        found |= {name: Path(str(distribution.locate_file(name))) for name in names}
        required = [line for line in distribution.requires or [] if "extra ==" not in line]
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]
    return found
