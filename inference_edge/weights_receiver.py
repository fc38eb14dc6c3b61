"""Which version of the model is in use: the newest that is good, or the one that somebody asked for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from ptychoflow.inference_edge.final_weights import FinalWeights
from ptychoflow.streaming.commands import CommandReceiver, FollowWeights, RollBackWeights
from ptychoflow.streaming.events import WarningRaised, WeightsApplied, WeightsKept, WeightsRejected
from ptychoflow.streaming.messages import Weights
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.streaming.weights_channel import WeightsClient
from ptychoflow.trainer.models.tensor_file import BadWeights

log = logging.getLogger(__name__)


class Versioned(Protocol):
    """A model that can be used."""

    @property
    def version(self) -> int:
        """Of its weights."""


ModelT = TypeVar("ModelT", bound=Versioned)
Check = Callable[[Weights, bytes], ModelT]
"""Checks an announced weights file and makes a model of it, or raises `BadWeights`; runs in a thread of its own."""


class WeightsReceiver(Generic[ModelT]):
    """Fetches weights, checks them in a thread of its own, and holds the versions that can be used.

    Bad weights change nothing. Final weights that an edge before this one accepted are taken up again; newer ones may
    come if the trainer goes on. Use it from one thread, which is never kept waiting.

    Args:
        client: fetches.
        telemetry: told what is used and what is refused.
        final_weights: keeps those across a restart of the edge.
        weights_kept: versions that are held, the one in use included.
    """

    def __init__(
        self, client: WeightsClient, *, telemetry: TelemetrySender, final_weights: FinalWeights, weights_kept: int
    ) -> None:
        self.model: ModelT | None = None
        """The version in use."""
        self.final_seen = False
        """The newest version that came is the trainer's final one, be it accepted or refused."""
        self.stopped_seen = False
        """That trainer was stopped before it was done, and may go on."""
        self._client, self._telemetry = client, telemetry
        self._final_weights = final_weights
        self._recalled = final_weights.read()
        self._kept: deque[ModelT] = deque(maxlen=weights_kept)
        self._newest_seen = -1
        self._held = False
        self._malformed = 0
        self._checker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights-check")
        self._checking: tuple[Weights, Future[ModelT]] | None = None

    @property
    def previous(self) -> ModelT | None:
        """The version before the one in use, if it is kept."""
        older = [one for one in self._kept if self.model is not None and one.version < self.model.version]
        return older[-1] if older else None

    @property
    def trainer_away_s(self) -> float:
        """How long the trainer has been away; 0 while it is there, nothing of it is missing, or weights are checked."""
        return 0.0 if self.final_seen or self._checking is not None else self._client.trainer_away_s

    def fetch(self, prepare: Callable[[], Check[ModelT]], *, published: bool = False) -> None:
        """Fetch the newest weights, if any came and none are being checked; `prepare` then says how to check them.

        With `published`, the trainer's final weights are looked for in the run's folder if none came.
        """
        if self._checking is not None:
            return
        if self._recalled is not None:
            self._begin_check(prepare(), *self._recalled)
            return
        received = self._client.poll()
        self._tell_malformed()
        if received is None and published:
            received = self._final_weights.published(newer_than=self._newest_seen)
        if received is None:
            return
        announced, data = received
        if announced.version <= self._newest_seen:
            self._refuse(announced, f"version {self._newest_seen} came before it")
            return
        self._newest_seen = announced.version
        self._begin_check(prepare(), announced, data)

    def switch(self) -> bool:
        """Use the weights that have been checked, if any; return whether the model in use was replaced."""
        if self._checking is None or not self._checking[1].done():
            return False
        (announced, checked), self._checking = self._checking, None
        recalled, self._recalled = self._recalled is not None, None
        try:
            model = checked.result()
        except BadWeights as error:
            if recalled:
                log.warning("the final weights that were kept cannot be used, the trainer is asked: %s", error)
                return False
            self._note_final(announced)
            self._refuse(announced, str(error))
            return False
        self._note_final(announced)
        if recalled:
            self._newest_seen = announced.version
            self._client.skip_to(announced.version)
        if self._held and self.model is not None:
            self._keep_beside(model, self.model)
            return False
        self._kept.append(model)
        self._tell_kept()
        self._use(model)
        return True

    def roll_back(self, version: int) -> bool:
        """Use this version until `follow`, whatever comes; return whether the model in use was replaced."""
        model = next((one for one in self._kept if one.version == version), None)
        if model is None:
            self._warn(f"cannot roll back to weights {version}: kept are {[one.version for one in self._kept]}")
            return False
        self._held = True
        return self._use(model)

    def follow(self) -> bool:
        """Use the newest version again; return whether the model in use was replaced."""
        self._held = False
        return bool(self._kept) and self._use(self._kept[-1])

    def apply_commands(self, commands: CommandReceiver) -> bool:
        """Do what people have asked for since the last call; return whether another version is in use now."""
        replaced = False
        while (command := commands.poll()) is not None:
            match command:
                case RollBackWeights(version=version):
                    replaced |= self.roll_back(version)
                case FollowWeights():
                    replaced |= self.follow()
        return replaced

    def discard(self, failed: ModelT, reason: str) -> None:
        """Do not use a version again, if it is still kept; go back from it to the one before if it is in use.

        Raises:
            RuntimeError: it is in use, and there is none before.
        """
        if failed not in self._kept:
            return
        before = self.previous
        if failed is self.model and before is None:
            raise RuntimeError("there are no weights to go back to")
        self._kept.remove(failed)
        self._tell_kept()
        log.warning("weights %d are not used again: %s", failed.version, reason)
        self._telemetry.send(WeightsRejected(failed.version, reason))
        if failed is self.model and before is not None:
            self._use(before)

    def leave(self) -> None:
        """Tell the trainer, if it is there, not to wait for this edge."""
        self._client.leave()

    def close(self) -> None:
        """Wait for a check that is running."""
        self._checker.shutdown(cancel_futures=True)

    def _begin_check(self, check: Check[ModelT], announced: Weights, data: bytes) -> None:
        self._checking = announced, self._checker.submit(self._check, check, announced, data)

    def _check(self, check: Check[ModelT], announced: Weights, data: bytes) -> ModelT:
        model = check(announced, data)
        if model.version != announced.version:
            raise BadWeights(f"the file holds version {model.version}, announced was {announced.version}")
        if announced.final and not announced.stopped:
            self._final_weights.write(announced, data)
        return model

    def _note_final(self, announced: Weights) -> None:
        self.final_seen, self.stopped_seen = announced.final, announced.stopped

    def _keep_beside(self, model: ModelT, held: ModelT) -> None:
        self._kept.append(model)
        if held not in self._kept:
            self._kept.popleft()
            self._kept.appendleft(held)
        self._tell_kept()

    def _use(self, model: ModelT) -> bool:
        if model is self.model:
            return False
        self.model = model
        self._telemetry.send(WeightsApplied(model.version))
        return True

    def _tell_kept(self) -> None:
        self._telemetry.send(WeightsKept([one.version for one in self._kept]))

    def _refuse(self, announced: Weights, reason: str) -> None:
        log.warning("refused weights version %d: %s", announced.version, reason)
        self._telemetry.send(WeightsRejected(announced.version, reason))

    def _tell_malformed(self) -> None:
        if self._client.malformed > self._malformed:
            self._malformed = self._client.malformed
            self._warn("weights came in a message that cannot be read; they are not used")

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        self._telemetry.send(WarningRaised(text))
