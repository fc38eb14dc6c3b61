"""`ptychoflow doctor`: whether this host is ready for a run."""

from __future__ import annotations

from ptychoflow.workflow.commands.options import ConfigOption, SetOption


def doctor(config: ConfigOption = None, assignments: SetOption = None) -> int:
    """Look whether this host is ready for a run, and say what to do where it is not.

    One line each, green, yellow or red: versions, GPUs, UCX, and with a configuration interface, names, ports, keys,
    disk, and the clocks of the hosts whose parts run. The exit status is 1 if anything is red.
    """
    from rich.console import Console

    from ptychoflow.workflow.configuration.config import load_config
    from ptychoflow.workflow.doctor.examination import examine, show

    settings = None if config is None and not assignments else load_config(file=config, assignments=assignments or ())
    return show(examine(settings), Console())
