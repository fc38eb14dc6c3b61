"""What the launcher says of the other parts."""

from __future__ import annotations

from ptychoflow.streaming.events.base import Event, Part, PartState


class PartObserved(Event, tag="part_observed", frozen=True):
    """The launcher has started a part, or seen how it ended; `text` says why, in words for a person."""

    part: Part
    state: PartState
    text: str = ""
