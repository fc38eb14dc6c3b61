"""One colour for each method, the same in all figures."""

from __future__ import annotations

from ptychoflow.workflow.drawing import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    LIGHT_BLUE,
    LIGHT_GREEN,
    ORANGE,
    RED,
    VIOLET,
    YELLOW,
)
from ptychoflow.workflow.experiments.methods import Method

COLOURS = {
    Method.INCREMENTAL: ORANGE,
    Method.INCREMENTAL_MORE: BROWN,
    Method.ER: BLUE,
    Method.ER_MORE: LIGHT_BLUE,
    Method.DER: RED,
    Method.DERPP: GREEN,
    Method.DERPP_TWO_DRAWS: LIGHT_GREEN,
    Method.XDER: VIOLET,
    Method.FROM_SCRATCH: GREY,
    Method.MEMORISER: BLACK,
    Method.MEMORISER_BUFFER: YELLOW,
}
