"""What the signal is called that ended a process."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number where it has none: most of the real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
