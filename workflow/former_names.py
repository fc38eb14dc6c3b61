"""Names of commands, options and keys that have changed; the former ones are understood for one release.

A name leaves these tables one release after it changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

COMMANDS: Mapping[tuple[str, str], str] = {
    ("experiment", "imagenet"): "classification",
    ("bench", "images"): "classification",
}
"""A sub-command's new name, by its group and its former name."""
OPTION_VALUES: Mapping[tuple[str, str], str] = {
    ("--pipeline", "imagenet"): "classification",
    ("--preset", "images"): "classification",
}
"""An option's new value, by the option and its former value."""


def with_present_names(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which every former name is replaced by the present one; each is told in the log."""
    present = list(arguments)
    for place, word in enumerate(present):
        before = present[place - 1] if place else ""
        option, separator, value = word.partition("=")
        if place == 1 and (before, word) in COMMANDS:
            present[place] = _told(word, COMMANDS[before, word])
        elif (before, word) in OPTION_VALUES:
            present[place] = _told(word, OPTION_VALUES[before, word])
        elif separator and (option, value) in OPTION_VALUES:
            present[place] = f"{option}={_told(value, OPTION_VALUES[option, value])}"
    return present


def _told(former: str, present: str) -> str:
    log.warning("'%s' is called '%s' now; the former name goes with the next release", former, present)
    return present
