"""What a figure must reach, as results tell it."""

from __future__ import annotations

from typing import Any, Literal


def make_target(name: str, value: float, target: float, direction: Literal["min", "max"]) -> dict[str, Any]:
    """Return plain JSON values: figure, target, and whether it is met.

    Args:
        name: of the figure.
        value: what was measured.
        target: what was promised.
        direction: "min" if the value must not be below the target, "max" if it must not be above.
    """
    met = value >= target if direction == "min" else value <= target
    return {"name": name, "value": value, "target": target, "direction": direction, "met": met}
