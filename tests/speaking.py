"""Events with the envelope in which a part sends them."""

from __future__ import annotations

from typing import NamedTuple

from ptychoflow.streaming.events import AnyEvent, Part, Telemetry, acquisition, edge, trainer

SPEAKERS = {acquisition: Part.ACQUISITION, trainer: Part.TRAINER, edge: Part.EDGE}


class Said(NamedTuple):
    """An event and who says it."""

    part: Part
    event: AnyEvent
    rank: int = 0


def of(part: Part, event: AnyEvent) -> Said:
    return Said(part, event)


def of_rank(rank: int, event: AnyEvent) -> Said:
    return Said(Part.TRAINER, event, rank)


def telemetry(said: Said | AnyEvent, time_s: float = 1.0) -> Telemetry:
    """Return an event in its envelope; without a word about it, the part that has such events speaks."""
    if not isinstance(said, Said):
        speakers = (part for module, part in SPEAKERS.items() if type(said).__module__ == module.__name__)
        said = Said(next(speakers, Part.WORKFLOW), said)
    return Telemetry(time_s, said.part, said.rank, said.event)
