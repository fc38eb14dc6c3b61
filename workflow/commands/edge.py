"""`ptychoflow edge`: the inference edge alone."""

from __future__ import annotations

from streaming.events import Part
from workflow.commands.options import ConfigOption, SetOption


def edge(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Image every frame with the newest weights.

    One part of a run over several hosts.
    """
    from inference_edge.service import serve_edge
    from workflow.part_process import part_process

    with part_process(Part.EDGE, config, assignments) as part:
        settings = part.config
        serve_edge(settings.edge, network=settings.network, run=settings.run.context(), stop=part.stop)
