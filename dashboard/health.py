"""What every part is doing, what it said last, and when it was last heard of."""

from __future__ import annotations

from collections import deque

from ptychoflow.dashboard import models
from ptychoflow.streaming.events import Part, PartObserved, PartState, PartStatus, Telemetry

WORDS_KEPT = 6


class PartsHealth:
    """Follows the parts of one run."""

    def __init__(self) -> None:
        self._parts: dict[Part, models.PartHealth] = {}
        self._words: dict[Part, deque[models.LastWord]] = {}

    def take(self, telemetry: Telemetry) -> None:
        """Take in what a part says about itself, or note that it was heard of."""
        match telemetry.event:
            case PartStatus(state, text):
                self._take_status(telemetry.part, state, text, telemetry.time_s)
            case PartObserved(part, state, text):
                self._take_status(part, state, text, telemetry.time_s)
            case _:
                self._hear(telemetry.part, telemetry.time_s)

    def all(self) -> list[models.PartHealth]:
        """Return copies, in the order of the data's way."""
        return [self._parts[part].model_copy() for part in Part if part in self._parts]

    def run_state(self) -> PartState:
        """Return the state of the run: the launcher's word, if there is one; else from the parts' own."""
        if Part.WORKFLOW in self._parts:
            return self._parts[Part.WORKFLOW].state
        states = {health.state for part, health in self._parts.items() if part is not Part.DASHBOARD}
        for telling in (PartState.FAILED, PartState.PAUSED, PartState.RUNNING):
            if telling in states:
                return telling
        return PartState.DONE if states == {PartState.DONE} else PartState.STARTING

    def _take_status(self, part: Part, state: PartState, text: str, time_s: float) -> None:
        words = self._words.setdefault(part, deque(maxlen=WORDS_KEPT))
        words.append(models.LastWord(time_s=time_s, state=state, text=text))
        self._parts[part] = models.PartHealth(part=part, state=state, text=text, last_heard_s=time_s, words=list(words))

    def _hear(self, part: Part, time_s: float) -> None:
        if part not in self._parts:
            self._parts[part] = models.PartHealth(
                part=part, state=PartState.RUNNING, text="", last_heard_s=time_s, words=[]
            )
        self._parts[part].last_heard_s = time_s
