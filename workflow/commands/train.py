"""`ptychoflow train`: one trainer rank alone; torchrun starts several."""

from __future__ import annotations

import os

from ptychoflow.streaming.events import Part
from ptychoflow.workflow.commands.options import ConfigOption, PipelineOption, SetOption
from ptychoflow.workflow.launching.torchrun import die_with_parent, under_torchrun


def train(config: ConfigOption = None, assignments: SetOption = None, pipeline: PipelineOption = None) -> None:
    """Train on the stream and serve the weights.

    One part of a run over several hosts; start it under torchrun for several ranks.
    """
    if under_torchrun():
        die_with_parent(os.getppid())
    from ptychoflow.trainer.service import train as run_trainer
    from ptychoflow.workflow.launching.part_process import part_process

    with part_process(Part.TRAINER, config, assignments, pipeline=pipeline) as part:
        settings = part.config
        run_trainer(settings.trainer, network=settings.network, run=settings.run.context(), stop=part.stop)
