"""`ptychoflow acquire`: the acquisition alone."""

from __future__ import annotations

from ptychoflow.streaming.events import Part
from ptychoflow.workflow.commands.options import ConfigOption, PipelineOption, SetOption


def acquire(config: ConfigOption = None, assignments: SetOption = None, pipeline: PipelineOption = None) -> None:
    """Publish a scan: its frames, and samples with ground truth; or labelled images, task by task.

    One part of a run over several hosts.
    """
    from ptychoflow.acquisition.classification.service import acquire_images
    from ptychoflow.acquisition.ptychography.service import acquire as run_acquisition
    from ptychoflow.workflow.configuration.config import ClassificationConfig
    from ptychoflow.workflow.launching.part_process import part_process
    from ptychoflow.workflow.launching.run_folder import remove_unwanted_arrivals

    with part_process(Part.ACQUISITION, config, assignments, pipeline=pipeline) as part:
        settings, run = part.config, part.config.run.context()
        if isinstance(settings, ClassificationConfig):
            acquire_images(settings.source, settings.acquisition, network=settings.network, run=run, stop=part.stop)
            return
        ended = run_acquisition(
            settings.source,
            settings.acquisition,
            settings.retrieval,
            network=settings.network,
            run=run,
            stop=part.stop,
            keep_frames=settings.outputs.ptychodus is not None,
        )
        if ended and not part.launched:
            remove_unwanted_arrivals(part.folder, settings)
