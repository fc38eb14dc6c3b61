"""Texts in a configuration that must be written in a certain way."""

from __future__ import annotations

import re

from pydantic import AfterValidator


def written_as(pattern: str, asked: str) -> AfterValidator:
    """Return a validator of a text that fits a regular expression as a whole; whoever wrote another is told `asked`."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(asked)
        return text

    return AfterValidator(check)
