"""`ptychoflow outputs`: images and scores for other programs."""

from __future__ import annotations

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part
from ptychoflow.workflow.commands.options import ConfigOption, SetOption


def outputs(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Send images and scores to what `[outputs]` names, until stopped.

    One part of a run over several hosts.
    """
    from ptychoflow.dashboard.outputs.service import serve_outputs
    from ptychoflow.workflow.configuration.config import Config
    from ptychoflow.workflow.launching.part_process import part_process

    with part_process(Part.OUTPUTS, config, assignments) as part:
        settings = part.config
        if not isinstance(settings, Config):
            raise UserError("[outputs] is for scans: there are no stitched images of labelled ones")
        serve_outputs(settings.outputs, network=settings.network, run=settings.run.context(), stop=part.stop)
