"""Names in the order that people expect."""

from __future__ import annotations

import re


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: scan_9 before scan_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
