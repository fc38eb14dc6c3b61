"""Docstrings of classes, and of what they are made of: the text under each field or member."""

from __future__ import annotations

import inspect
from functools import cache

from sphinx.pycode import ModuleAnalyzer


def of_class(cls: type) -> str:
    """Return the docstring that the class itself has; nothing for an inherited one."""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")


def of_attribute(cls: type, name: str) -> str:
    """Return the text under a field or member, as one line, wherever in the class's bases it is written."""
    for owner in cls.__mro__:
        lines = _attribute_docs(owner.__module__).get((owner.__name__, name))
        if lines:
            return " ".join(" ".join(lines).split())
    return ""


@cache
def _attribute_docs(module: str) -> dict[tuple[str, str], list[str]]:
    return ModuleAnalyzer.for_module(module).find_attr_docs() if module.startswith("ptychoflow.") else {}
