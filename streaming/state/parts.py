"""What every part is doing, what it said last, and when it was last heard of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ptychoflow.streaming.events import WATCHING, Part, PartObserved, PartState, PartStatus, Telemetry
from ptychoflow.streaming.state.rows import shortened

WORDS_KEPT = 6
FAILURES_KEPT = 100


@dataclass(frozen=True)
class LastWord:
    """Something that a part said about itself."""

    time_s: float
    state: PartState
    text: str


@dataclass
class PartHealth:
    """One part of the run."""

    part: Part
    state: PartState
    text: str
    last_heard_s: float
    words: deque[LastWord] = field(default_factory=lambda: deque(maxlen=WORDS_KEPT))


class PartsHealth:
    """Follows the parts of one run."""

    def __init__(self) -> None:
        self.failures: dict[tuple[Part, str], None] = {}
        """What failed and why, each once, in the order in which it was told."""
        self.complete = False
        """The acquisition has ended by itself: it does so once every receiver has finished with all that it sent."""
        self._parts: dict[Part, PartHealth] = {}

    def apply(self, telemetry: Telemetry, *, at_s: float) -> None:
        """Take in what a part says about itself, or note that it was heard of."""
        match telemetry.event:
            case PartStatus(state, text, stopped):
                if telemetry.part is Part.ACQUISITION:
                    self.complete = state is PartState.DONE and not stopped
                self._take(telemetry.part, LastWord(at_s, state, shortened(text)))
            case PartObserved(part, state, text):
                self._take(part, LastWord(at_s, state, shortened(text)))
            case _:
                self._of(telemetry.part, at_s).last_heard_s = at_s

    def all(self) -> list[PartHealth]:
        """Return them in the order of the data's way."""
        return [self._parts[part] for part in Part if part in self._parts]

    def run_state(self) -> PartState:
        """Return the state of the run: the launcher's word, if there is one; else from the parts' own."""
        if Part.WORKFLOW in self._parts:
            return self._parts[Part.WORKFLOW].state
        states = {health.state for part, health in self._parts.items() if part not in WATCHING}
        for telling in (PartState.FAILED, PartState.PAUSED, PartState.RUNNING):
            if telling in states:
                return telling
        return PartState.DONE if states == {PartState.DONE} else PartState.STARTING

    def _of(self, part: Part, at_s: float) -> PartHealth:
        return self._parts.setdefault(part, PartHealth(part, PartState.RUNNING, "", at_s))

    def _take(self, part: Part, word: LastWord) -> None:
        health = self._of(part, word.time_s)
        health.state, health.text, health.last_heard_s = word.state, word.text, word.time_s
        health.words.append(word)
        if word.state is PartState.FAILED and len(self.failures) < FAILURES_KEPT:
            self.failures.setdefault((part, word.text))
