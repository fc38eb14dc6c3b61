"""`ptychoflow acquire`: the acquisition alone."""

from __future__ import annotations

from streaming.events import Part
from workflow.commands.options import ConfigOption, SetOption


def acquire(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Publish a scan: its frames, and samples with ground truth.

    One part of a run over several hosts.
    """
    from acquisition.service import acquire as run_acquisition
    from workflow.part_process import part_process

    with part_process(Part.ACQUISITION, config, assignments) as part:
        settings = part.config
        run_acquisition(
            settings.source,
            settings.acquisition,
            settings.retrieval,
            network=settings.network,
            run=settings.run.context(),
            stop=part.stop,
        )
