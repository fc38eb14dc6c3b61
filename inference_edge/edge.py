"""The loop that every edge runs, and what connects it with the other parts of a run."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.inference_edge.settings import InferenceSettings
from ptychoflow.inference_edge.stream_receiver import StreamReceiver
from ptychoflow.inference_edge.wake_up import WakeUp
from ptychoflow.inference_edge.weights_receiver import Check, Versioned, WeightsReceiver
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus, WarningRaised
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import StreamStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.streaming.weights_channel import WeightsClient

log = logging.getLogger(__name__)

IDLE_S = LOOKS_AROUND_EVERY_S = 0.05
"""How often commands, weights and reports are seen to while frames come in; each look costs as much as some frames."""
LOOKS_EVERY_S = 1.0
"""How often final weights are looked for in the run's folder."""

StartT = TypeVar("StartT", bound=StreamStart)
ModelT = TypeVar("ModelT", bound=Versioned)


@dataclass(frozen=True)
class EdgeLinks(Generic[ModelT]):
    """What connects an edge with the other parts of a run."""

    inbox: Inbox
    weights: WeightsReceiver[ModelT]
    commands: CommandReceiver
    telemetry: TelemetrySender
    wake_up: WakeUp
    """Ends the inbox's waiting."""
    trainer_patience_s: float
    """How long a trainer is waited for that is away when the stream has ended."""

    @classmethod
    @contextmanager
    def open(cls, settings: InferenceSettings, *, network: NetworkSettings, run: RunContext) -> Iterator[Self]:
        """Open an edge's sockets within the context.

        Raises:
            UserError: keys are missing.
        """
        keep_freed_memory()
        with ExitStack() as stack:
            telemetry = stack.enter_context(closing(TelemetrySender(network, part=Part.EDGE)))
            commands = stack.enter_context(closing(CommandReceiver(network)))
            wake_up = stack.enter_context(closing(WakeUp()))

            def warn(text: str) -> None:
                telemetry.send(WarningRaised(text))

            inbox = stack.enter_context(
                Inbox(network, consumer="edge", port=network.frames_port, warn=warn, wake=wake_up.socket)
            )
            client = stack.enter_context(closing(WeightsClient(network, edge=_name(run))))
            final_weights = FinalWeights(run.folder)
            weights = WeightsReceiver[ModelT](
                client, telemetry=telemetry, final_weights=final_weights, weights_kept=settings.weights_kept
            )
            stack.enter_context(closing(weights))
            # what stays exempt at the interpreter's end is reported as leaked by libraries that count their objects
            stack.callback(gc.unfreeze)
            yield cls(inbox, weights, commands, telemetry, wake_up, settings.wait_for_trainer_s)

    def report_status(self, state: PartState, text: str) -> None:
        """Say what the edge is at."""
        log.info("%s: %s", state.value, text)
        self.telemetry.send(PartStatus(state, text))

    def warn(self, text: str) -> None:
        """Say something that a user should know before trusting the result."""
        log.warning("%s", text)
        self.telemetry.send(WarningRaised(text))


def _name(run: RunContext) -> str:
    """Return what tells an edge from others, and is the same when it is started again."""
    return f"the {Part.EDGE.value} on {socket.gethostname()} in {run.folder.path.resolve()}"


class Edge(ABC, Generic[StartT, ModelT]):
    """Images what comes with the newest weights, until all of it is imaged with the final ones.

    Args:
        links: to the other parts.
        receiver: receives the stream.
    """

    SOURCE: ClassVar[str]
    """What it waits for."""
    ACTIVITY: ClassVar[str]
    """What it does with it."""

    def __init__(self, links: EdgeLinks[ModelT], receiver: StreamReceiver[StartT, Any, Any]) -> None:
        self._links, self._weights = links, links.weights
        self._receiver = receiver
        self._announced: StartT | None = None
        self._short_from_s: float | None = None
        self._look_at_s = self._look_around_at_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until everything is done, or until `stop` is set.

        Raises:
            UserError: the trainer has ended without weights that can be used, or is away for too long with its final
                ones; or something cannot be written.
        """
        self._links.report_status(PartState.STARTING, f"waiting for {self.SOURCE}")
        while not (stop.is_set() or self._finished()):
            if self._may_receive():
                self._receiver.receive(0.0 if self._busy() else self._idle_s())
            else:
                self._links.wake_up.wait(IDLE_S)
            self._links.wake_up.clear()
            looks_around = time.monotonic() >= self._look_around_at_s
            if looks_around:
                self._see_to_weights()
            self._advance()
            if looks_around or not self._unimaged():
                self._receiver.tell_held()
            if looks_around:
                self._report()
                self._look_around_at_s = time.monotonic() + LOOKS_AROUND_EVERY_S
        self._end(finished=self._finished())
        if self._finished():
            self._links.wake_up.clear()
            self._weights.leave()
            self._links.inbox.wait_until_complete(stop)

    @abstractmethod
    def _unimaged(self) -> int:
        """Return how many frames are received and not yet imaged."""

    def _may_receive(self) -> bool:
        """Whether more of the stream is to be taken now; the base class always takes it."""
        return True

    @abstractmethod
    def _busy(self) -> bool:
        """Whether there is something to do at once."""

    def _idle_s(self) -> float:
        """Return how long to wait for messages while there is nothing to do; the base class looks around then."""
        return IDLE_S

    @abstractmethod
    def _check(self, start: StartT) -> Check[ModelT]:
        """Return how to check weights, on frames chosen now."""

    @abstractmethod
    def _advance(self) -> None:
        """Image a batch, if frames wait and there are weights; must not wait for long."""

    @abstractmethod
    def _report(self) -> None:
        """Report what has changed, each thing not too often."""

    @abstractmethod
    def _end(self, *, finished: bool) -> None:
        """Report and write what is left; acknowledge everything if it is `finished`."""

    def _see_to_weights(self) -> None:
        if self._weights.apply_commands(self._links.commands):
            self._use_other_weights()
        self._update_weights(published=self._looks_for_published(self._waited_for_trainer_s()))
        # asked anew: what was found just now is being checked
        gives_up = self._waited_for_trainer_s() > self._links.trainer_patience_s
        if self._receiver.ended and gives_up and not self._weights.final_seen:
            self._end(finished=False)
            raise UserError(
                "edge: the final weights have not come, and the trainer has been away for "
                f"{self._links.trainer_patience_s:.0f} s; the images made until then are kept; "
                "start the trainer again, or resume the run"
            )

    def _finished(self) -> bool:
        return self._receiver.ended and self._weights.final_seen and not self._unimaged()

    def _waited_for_trainer_s(self) -> float:
        """Return how long only weights have been missing with the trainer away: final ones at the end, or any."""
        now_s = time.monotonic()
        if not (self._receiver.ended or (self._weights.model is None and self._receiver.full)):
            self._short_from_s = None
            return 0.0
        self._short_from_s = now_s if self._short_from_s is None else self._short_from_s
        return min(self._weights.trainer_away_s, now_s - self._short_from_s)

    def _looks_for_published(self, waited_s: float) -> bool:
        """Whether to look for final weights in the run's folder now: a killed trainer has had its time to return."""
        if waited_s <= self._links.trainer_patience_s / 2 or time.monotonic() < self._look_at_s:
            return False
        self._look_at_s = time.monotonic() + LOOKS_EVERY_S
        return True

    def _use_other_weights(self) -> None:
        if self._weights.model is not None:
            version = self._weights.model.version
            self._links.report_status(PartState.RUNNING, f"{self.ACTIVITY} with weights {version}")

    def _update_weights(self, *, published: bool) -> None:
        start = self._receiver.start
        if start is None:
            return
        if start is not self._announced:
            self._announced = start
            waits = self._weights.model is None
            self._links.report_status(PartState.RUNNING, "waiting for the first weights" if waits else self.ACTIVITY)
        replaced = self._weights.switch()
        if self._weights.final_seen and self._weights.model is None:
            raise UserError(
                f"edge: nothing can be done for {self.SOURCE}, all weights up to the final ones were refused; "
                "see its log"
            )
        if replaced:
            self._use_other_weights()
            if not gc.get_freeze_count():
                # libraries are loaded now: a search of all their objects for garbage would halt imaging for 0.3 s
                gc.freeze()
        self._weights.fetch(lambda: self._check(start), published=published)
