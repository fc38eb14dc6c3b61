"""One colour for each method, the same in all figures."""

from __future__ import annotations

from ptychoflow.workflow.drawing import BLUE, GREEN, GREY, ORANGE, RED, VIOLET
from ptychoflow.workflow.experiments.methods import Method

COLOURS = {
    Method.INCREMENTAL: ORANGE,
    Method.ER: BLUE,
    Method.DER: RED,
    Method.DERPP: GREEN,
    Method.XDER: VIOLET,
    Method.FROM_SCRATCH: GREY,
}
