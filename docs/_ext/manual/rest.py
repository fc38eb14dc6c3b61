"""The reference of the dashboard's interface, from its own OpenAPI description."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from ptychoflow.dashboard.app import CommandAccess, create_app
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.commands import CommandSender
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings

ANY_PORT = 9
"""Of a hub that is never spoken to: describing the interface sends nothing."""


def rest_reference() -> str:
    """Return every route: what it answers and takes."""
    schema = openapi()
    parts = []
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(_route(path, method.upper(), route, schema["components"]["schemas"]))
    return "\n".join(parts)


def openapi() -> dict[str, Any]:
    """Return the interface as OpenAPI describes it."""
    settings = DashboardSettings()
    with closing(CommandSender(NetworkSettings(commands_port=ANY_PORT))) as sender:
        runs = Runs(DashboardState("run", settings, controllable=True), RunFolder(Path("runs/run")), settings)
        return create_app(runs, settings, commands=CommandAccess(sender, "token")).openapi()


def _route(path: str, method: str, route: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [_parameter(parameter, schemas) for parameter in route.get("parameters", ())]
    return "\n".join([f"## {method} `{path}`\n", route.get("description", ""), "", *rows, ""])


def _parameter(parameter: dict[str, Any], schemas: dict[str, Any]) -> str:
    text = parameter.get("description") or parameter["schema"].get("description", "")
    choices = ", ".join(f"`{choice}`" for choice in _choices(parameter["schema"], schemas))
    said = " ".join(filter(None, [text, choices and f"One of {choices}."]))
    needed = "" if parameter.get("required") else ", may be left out"
    return f"- `{parameter['name']}` ({parameter['in']}{needed}){f': {said}' if said else ''}"


def _choices(schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """Return what a parameter that is an enumeration can be, else nothing."""
    for one in schema.get("anyOf", [schema]):
        if "$ref" in one:
            return list(schemas[one["$ref"].rpartition("/")[2]].get("enum", ()))
    return []
