"""`ptychoflow edge`: the inference edge alone."""

from __future__ import annotations

from streaming.events import Part
from workflow.commands.options import ConfigOption, SetOption
from workflow.part_process import part_process


def edge(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Image every frame with the newest weights and stitch the result (one part, for several hosts)."""
    from inference_edge.service import serve_edge

    with part_process(Part.EDGE, config, assignments) as part:
        settings = part.config
        serve_edge(settings.edge, network=settings.network, run=settings.run.context(), stop=part.stop)
