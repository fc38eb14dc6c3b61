"""All that the doctor looks at, in order, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.configuration.config import AnyConfig
from ptychoflow.workflow.configuration.run_settings import RunSettings
from ptychoflow.workflow.doctor.clocks import look_at_clocks
from ptychoflow.workflow.doctor.disk import look_at_disk
from ptychoflow.workflow.doctor.finding import Finding, Light
from ptychoflow.workflow.doctor.hosts import look_at_interface, look_at_names, look_at_page, look_at_ports
from ptychoflow.workflow.doctor.keys import look_at_keys
from ptychoflow.workflow.doctor.software import look_at_gpus, look_at_ucx, look_at_versions
from ptychoflow.workflow.exit_status import FAILED_STATUS

LIGHT_WIDTH, TOPIC_WIDTH = 8, 11


def examine(config: AnyConfig | None) -> Iterator[Finding]:
    """Yield what is found on this host; without a configuration, for a run of which all is left as it is."""
    network = NetworkSettings() if config is None else config.network
    run = RunSettings() if config is None else config.run
    yield from look_at_versions()
    yield from look_at_gpus(config)
    yield from look_at_ucx(config)
    yield from look_at_interface(network)
    yield from look_at_names(network)
    yield from look_at_ports(network, ranks=1 if config is None else config.trainer.ranks)
    yield from look_at_page(DashboardSettings() if config is None else config.dashboard, network)
    yield from look_at_keys(network)
    yield from look_at_disk(run.context())
    yield from look_at_clocks(network)


def show(findings: Iterable[Finding], console: Console) -> int:
    """Print findings as they come, in colour on a terminal; return the exit status."""
    worst_is_red = False
    for one in findings:
        light = Text(one.light.ljust(LIGHT_WIDTH), style=f"bold {one.light}")
        text = f"{one.topic.ljust(TOPIC_WIDTH)}{' '.join(one.text.split())}"
        console.print(light + Text(text), soft_wrap=True)
        worst_is_red |= one.light is Light.RED
    return FAILED_STATUS if worst_is_red else 0
