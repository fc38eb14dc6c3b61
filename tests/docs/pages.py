"""The manual's pages as the tests read them: fenced blocks, and what is marked on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(
    r"(?:^<!-- (?P<marker>(?:not )?run\b.*?) -->\n)?"
    r"^(?P<fence>`{3,}|:{3,})(?:\{code-block\} (?P<written>\w+)|(?P<language>\w+))\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
CAPTION = re.compile(r"\A:caption: (\S+)\n\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str
    file: str | None
    """The name under which the page says that it is written."""
    marker: str
    """What the comment above it says: `run with: OPTIONS`, `run in the background: NAME`, `run until interrupted`,
    `run, refused with status N`, `not run: REASON`, or nothing."""

    @property
    def runs(self) -> bool:
        """Whether a reader, and the tests, run it as it stands."""
        return self.language in {"sh", "python"} and self.file is None and not self.marker.startswith("not run")

    @property
    def options(self) -> str:
        """What the page says may be added to its commands, to be quicker."""
        return self.marker.partition("run with: ")[2]


def pages(folder: str = ".") -> list[Path]:
    """Return the pages that are written by hand, those of a folder or all."""
    return [path for path in sorted((DOCS / folder).rglob("*.md")) if "_build" not in path.parts]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in their order."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        text = found["text"]
        caption = CAPTION.match(text)
        yield Block(
            page=page,
            language=found["written"] or found["language"],
            text=text[caption.end() :] if caption else text,
            file=caption[1] if caption else None,
            marker=found["marker"] or "",
        )
