"""The keys of a run over several hosts: there, readable, and by their owner alone."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.keys import CLIENT, SERVER, load_keys
from ptychoflow.streaming.settings import NetworkSettings, is_loopback
from ptychoflow.workflow.doctor.finding import Finding, green, red

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def look_at_keys(network: NetworkSettings) -> Iterator[Finding]:
    """Yield whether the keys can be used, and who can read them."""
    folder = network.keys_dir
    if folder is None:
        hosts = (network.acquisition_host, network.trainer_host, network.hub_host)
        away = [host for host in hosts if not is_loopback(host)]
        if away:
            yield red("keys", f"none, and {away[0]} is not loopback: run `ptychoflow keys DIR`, set network.keys_dir")
        else:
            yield green("keys", "none are needed: all parts are on this host")
        return
    try:
        for name in (SERVER, CLIENT):
            load_keys(folder, name)
    except UserError as error:
        yield red("keys", str(error))
        return
    if exposed := [path for path in sorted(folder.glob("*.key_secret")) if _mode(path) & OTHERS]:
        listed = ", ".join(f"{path.name} has mode {_mode(path):o}" for path in exposed)
        yield red("keys", f"{folder}: {listed}: others can read it; chmod 600, or make new keys if others have")
    else:
        yield green("keys", f"{folder} holds them, readable by their owner alone")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
