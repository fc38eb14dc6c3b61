"""`ptychoflow acquire`: the acquisition alone."""

from __future__ import annotations

from streaming.events import Part
from workflow.commands.options import ConfigOption, SetOption
from workflow.part_process import part_process


def acquire(config: ConfigOption = None, assignments: SetOption = None) -> None:
    """Read or simulate the scan, compute ground truth and publish frames and samples (one part, for several hosts)."""
    from acquisition.service import acquire as run_acquisition

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
