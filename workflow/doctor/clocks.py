"""The clocks of the hosts on which parts run: what these say through the hub carries their time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetrySubscriber
from ptychoflow.workflow.doctor.finding import Finding, green, yellow

LISTEN_S = 3.0
APART_S = 1.0
"""Frames take less than this from acquisition to image; clocks further apart spoil that figure."""


def look_at_clocks(network: NetworkSettings, *, listen_s: float = LISTEN_S) -> Iterator[Finding]:
    """Yield how far the clocks of the parts that speak are from this host's. Blocks for `listen_s`."""
    if not network.fanout_port:
        yield green("clocks", "all parts will be on this host")
        return
    try:
        ahead_s = _listen(network, listen_s)
    except UserError as error:
        yield yellow("clocks", f"unknown, the hub cannot be heard here: {error}")
        return
    if not ahead_s:
        said = f"unknown: nobody spoke through the hub on {network.hub_host} for {listen_s:.0f} s"
        yield yellow("clocks", f"{said}; ask again when the hub and other parts of the run have been started")
        return
    if apart := {who: by_s for who, by_s in ahead_s.items() if abs(by_s) > APART_S}:
        listed = ", ".join(f"{who} by {by_s:+.1f} s" for who, by_s in apart.items())
        yield yellow("clocks", f"apart from this host's: {listed}: frame-to-image times will be wrong; start chrony")
    else:
        widest_s = max(map(abs, ahead_s.values()))
        yield green("clocks", f"within {widest_s:.1f} s of this host's: {', '.join(ahead_s)}")


def _listen(network: NetworkSettings, listen_s: float) -> dict[str, float]:
    """Return how far ahead of this host's the clocks of those are that speak, as the word says that came fastest."""
    ahead_s: dict[str, float] = {}
    deadline_s = time.monotonic() + listen_s
    with closing(TelemetrySubscriber(network)) as subscriber:
        while (remaining_s := deadline_s - time.monotonic()) > 0:
            if (told := subscriber.receive(remaining_s)) is not None:
                speaker = f"{told.body.part} {told.body.rank}" if told.body.rank else str(told.body.part)
                # whatever delays a word makes its clock seem behind
                ahead_s[speaker] = max(told.body.time_s - time.time(), ahead_s.get(speaker, -math.inf))
    return ahead_s
