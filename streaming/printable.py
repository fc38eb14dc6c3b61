"""Text from outside as it may stand in a log and on a terminal: without anything that acts on either."""

from __future__ import annotations

import logging


def printable(text: str) -> str:
    r"""Return a text whose control characters, line breaks among them, are written out, such as `\x1b` or `\n`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


class PrintableFormatter(logging.Formatter):
    """Formats entries of a log, whatever names and messages they quote.

    Further lines of an entry are indented, so that none of them looks like an entry of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry."""
        first, *others = super().format(record).rstrip("\n").split("\n")
        return "\n".join([printable(first), *(f"  {printable(line)}" for line in others)])
