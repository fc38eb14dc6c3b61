"""`ptychoflow edge`: the inference edge alone."""

from __future__ import annotations

import os

from ptychoflow.streaming.events import Part
from ptychoflow.workflow.commands.options import ConfigOption, PipelineOption, SetOption


def edge(config: ConfigOption = None, assignments: SetOption = None, pipeline: PipelineOption = None) -> None:
    """Image every frame, or classify every image, with the newest weights.

    One part of a run over several hosts.
    """
    from ptychoflow.streaming.device import gpu_to_see
    from ptychoflow.workflow.configuration.config import ClassificationConfig
    from ptychoflow.workflow.launching.part_process import part_process

    with part_process(Part.EDGE, config, assignments, pipeline=pipeline) as part:
        settings, run = part.config, part.config.run.context()
        os.environ.update(gpu_to_see(settings.edge.device, settings.edge.gpu, setting="edge.gpu"))
        # imported here, because each brings the libraries of its networks
        if isinstance(settings, ClassificationConfig):
            from ptychoflow.inference_edge.classification.service import serve_classification

            serve_classification(settings.edge, network=settings.network, run=run, stop=part.stop)
        else:
            from ptychoflow.inference_edge.ptychography.service import serve_edge

            serve_edge(settings.edge, network=settings.network, run=run, stop=part.stop)
