"""The outputs that the settings name."""

from __future__ import annotations

from ptychoflow.dashboard.outputs.ntndarray import NtndarrayOutput
from ptychoflow.dashboard.outputs.output import Output
from ptychoflow.dashboard.outputs.settings import OutputsSettings


def open_outputs(settings: OutputsSettings) -> list[Output]:
    """Return the outputs that are switched on.

    Raises:
        UserError: a library is missing, or an address cannot be listened on.
    """
    outputs: list[Output] = []
    if settings.ntndarray is not None:
        outputs.append(NtndarrayOutput(settings.ntndarray))
    return outputs
