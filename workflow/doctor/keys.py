"""The keys of a run over several hosts: there, readable, and by their owner alone."""

from __future__ import annotations

from collections.abc import Iterator

from ptychoflow.streaming.access import Role
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.keys import load_pair, load_public, own_roles
from ptychoflow.streaming.settings import NetworkSettings, is_loopback
from ptychoflow.workflow.doctor.finding import Finding, green, red


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
        own = own_roles(folder)
        for role in own:
            load_pair(folder, [role])
        for role in Role:
            load_public(folder, role)
    except UserError as error:
        yield red("keys", str(error))
        return
    if own:
        yield green("keys", f"{folder} holds the secrets of {', '.join(own)}, readable by their owner alone")
    else:
        yield red("keys", f"{folder} holds no secret: copy ROLE.key_secret of each role that this host has")
