"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from ptychoflow.workflow.app import create_app

PROGRAM = "ptychoflow"


def all_commands() -> dict[str, Any]:
    """Return every command by its name with that of its group, as `bench edge`."""
    return dict(_walk(get_command(create_app()), ""))


def command_reference() -> str:
    """Return every command with its arguments and options."""
    return "\n".join(_describe(name, command) for name, command in all_commands().items())


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _describe(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"{PROGRAM} {name}")
    usage = " ".join([PROGRAM, name, *command.collect_usage_pieces(context)])
    parts = [
        f"## `{name}`\n",
        f"::::{{sub}} {name}\n",
        f"```text\n{usage}\n```\n",
        inspect.cleandoc(command.help or ""),
        "",
        f":::{{program}} {PROGRAM} {name}\n:::\n",
    ]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None:
            continue
        names, text = record
        if parameter.param_type_name == "argument":
            parts.append(f"`{names}`\n: {_plain(text)}\n")
        else:
            parts.append(f":::{{option}} {_signature(names)}\n\n{_plain(text)}\n:::\n")
    return "\n".join([*parts, "::::", ""])


def _signature(names: str) -> str:
    """Return `--on, --no-on` for what the help shows as `--on / --no-on`."""
    return names.replace(" / ", ", ")


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("*", r"\*").replace("<", r"\<")
