"""The presets of a run: what each says of itself, and its keys."""

from __future__ import annotations

from itertools import takewhile

from ptychoflow.workflow.configuration.presets import PRESET_FOLDER


def preset_table() -> str:
    """Return every preset with its first comment and its whole text."""
    parts = []
    for path in sorted(PRESET_FOLDER.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        comment = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))
        words = " ".join(line.removeprefix("#").strip() for line in comment)
        keys = "\n".join(text.splitlines()[len(comment) :]).strip()
        parts.append(f"### `{path.stem}`\n\n{words}\n\n```toml\n{keys}\n```\n")
    return "\n".join(parts)
