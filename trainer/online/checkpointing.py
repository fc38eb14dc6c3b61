"""When all ranks take a checkpoint of the training on a stream, what goes into it, and how they go on from one."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.commands import CommandReceiver, WriteCheckpoint
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.checkpoints.checkpoint import Checkpoint, checkpoint_name
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.checkpoints.writer import CheckpointWriter, ValidationFile
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.stream_checkpoint import VALIDATION_FILES, progress_state, validation_state
from ptychoflow.trainer.settings import CheckpointSettings
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.training_state import rank_state, restore_training

log = logging.getLogger(__name__)

STOP_PATIENCE_S = 3.0
"""What a part that was asked to stop has left for its last checkpoint."""
END_PATIENCE_S = 60.0


class Stateful(Protocol):
    """Something whose state is the same on all ranks."""

    def state(self) -> State:
        """Return what must be remembered; tensors are copies on the CPU."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""


class StatefulPerRank(Protocol):
    """Something that every rank has its own share of."""

    def state(self) -> State:
        """Return this rank's share; tensors are copies on the CPU."""

    def restore(self, states: Sequence[State]) -> None:
        """Take over the shares of some ranks, or of none."""


@dataclass(frozen=True)
class CheckpointContents:
    """What a checkpoint is made of, beside the stream."""

    identity: State
    """What must be the same when training goes on: numbers and text."""
    shared: Mapping[str, Stateful]
    learner: Learner[Any]
    strategy: Strategy
    own: Mapping[str, StatefulPerRank]
    """Beside the learner's and the buffer's, by name."""


class Checkpointing:
    """This rank's side of all checkpoints of a run.

    Args:
        settings: the period.
        contents: what is remembered.
        ingest: the stream; its messages are released by checkpoints that hold them.
        writer: writes in the background.
        rank: 0 decides when.
        commands: asked for `WriteCheckpoint`; None on other ranks.
        earlier_validation: names of the validation files that this rank has taken over.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        contents: CheckpointContents,
        *,
        ingest: SampleIngest,
        writer: CheckpointWriter,
        rank: int,
        commands: CommandReceiver | None,
        earlier_validation: Sequence[str] = (),
    ) -> None:
        self._settings, self._contents, self._ingest, self._writer = settings, contents, ingest, writer
        self._rank, self._commands = rank, commands
        self._validation_files = list(earlier_validation)
        self._unsaved: defaultdict[int, list[Arrays]] = defaultdict(list)
        self._uncovered: list[int] = []
        self._requested = False
        self._saved_s, self._saved_steps = time.monotonic(), contents.learner.steps

    def request(self) -> None:
        """Have a checkpoint written as soon as the one before is written."""
        self._requested = True

    def is_due(self) -> bool:
        """Whether a checkpoint should be written after the next step; rank 0's word counts."""
        while self._commands is not None and (command := self._commands.poll()) is not None:
            if isinstance(command, WriteCheckpoint):
                log.info("a checkpoint was asked for by a command")
                self._requested = True
        by_time = time.monotonic() - self._saved_s >= self._settings.every_s
        return (self._requested or by_time) and self._rank == 0 and self._has_news and self._writer.idle

    def save(self, loop: State) -> None:
        """Copy everything; it is written in the background. All ranks call this after the same step.

        Args:
            loop: what the loop must remember.
        """
        learner = self._contents.learner
        if not (self._has_news and learner.between_steps):
            return
        started_s = time.monotonic()
        self._writer.wait()
        progress, validation, covered = self._ingest.progress()
        self._uncovered += covered
        for perspective, arrays in validation.items():
            self._unsaved[perspective] += arrays
        file = self._validation_file(learner.steps)
        files = [*self._validation_files, *([file.name] if file else [])]
        shard = {
            "stream": progress_state(progress),
            VALIDATION_FILES: files,
            **rank_state(learner, self._contents.strategy),
        } | {name: part.state() for name, part in self._contents.own.items()}
        common = {"identity": self._contents.identity, "learner": learner.state(), "loop": loop} | {
            name: part.state() for name, part in self._contents.shared.items()
        }

        def note_complete() -> None:
            self._validation_files, self._unsaved = files, defaultdict(list)
            self._ingest.queue.release(self._pop_uncovered())

        self._writer.write(
            learner.steps,
            shard=shard,
            common=common if self._rank == 0 else None,
            validation=file,
            when_complete=note_complete,
        )
        self._requested = False
        self._saved_s, self._saved_steps = time.monotonic(), learner.steps
        log.info(
            "checkpoint after step %d: the step waited %.3f s for copies", learner.steps, self._saved_s - started_s
        )

    def finish(self, loop: State, *, stopped: bool) -> None:
        """Write the last checkpoint and wait until it is complete; all ranks call this after the last step.

        Where it cannot be written, what it should have held is let go of together with the stream's end, when nobody
        will ask for it again: the publisher would wait for ever.
        """
        self.save(loop)
        self._writer.wait(STOP_PATIENCE_S if stopped else END_PATIENCE_S)
        if not stopped:
            for sequence in self._pop_uncovered():
                self._ingest.queue.keep_for_restart(sequence)
            self._ingest.queue.release_all_settled()

    def _pop_uncovered(self) -> list[int]:
        """Return the messages that wait for a checkpoint, each once; the writing thread asks as well."""
        with self._ingest.queue.lock:
            uncovered, self._uncovered = self._uncovered, []
        return uncovered

    @property
    def _has_news(self) -> bool:
        return self._contents.learner.steps > self._saved_steps

    def _validation_file(self, step: int) -> ValidationFile | None:
        if not self._unsaved:
            return None
        name = f"{checkpoint_name(step)}.rank-{self._rank}.safetensors"
        return ValidationFile(name, validation_state(self._unsaved))


def restore(checkpoint: Checkpoint, contents: CheckpointContents, *, rank: int, ranks: int) -> State:
    """Bring all parts to where a checkpoint stood; return what the loop must remember. All ranks call this.

    Raises:
        UserError: the checkpoint is of another model, strategy or buffer, or damaged.
    """
    _check_identity(checkpoint, checkpoint.common()["identity"], contents.identity)
    common, shards = restore_training(checkpoint, contents.learner, contents.strategy, rank=rank, ranks=ranks)
    for name, share in contents.own.items():
        share.restore([shard[name] for shard in shards[rank::ranks]])
    for name, part in contents.shared.items():
        part.restore(common[name])
    loop: State = common["loop"]
    return loop


def _check_identity(checkpoint: Checkpoint, then: State, now: State) -> None:
    different = [name for name in now if then.get(name) != now[name]]
    if different:
        name = different[0]
        raise UserError(
            f"checkpoint {checkpoint.path} is of another run: its {name} is {then.get(name)}, here it is {now[name]}; "
            "resume with the configuration of that run, or start a new one"
        )
