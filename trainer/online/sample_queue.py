"""Samples that have arrived and wait to be trained on, with the receipts of the messages that brought them."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.online.batch_slots import BatchSlots, SlotRows, join_rows


@dataclass
class SampleCounts:
    """This rank's side of the frame ledger; distinct frame ids."""

    trained: int = 0
    validation: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def copy(self) -> SampleCounts:
        """Return a copy of its own."""
        return replace(self, rejected=self.rejected.copy())


@dataclass
class Receipt:
    """A message of the stream; it is settled when nothing that came with it is pending."""

    sequence: int
    perspective: int = -1
    pending: set[int] = field(default_factory=set)
    """Indices of the frames that wait to be trained on."""
    ends_section: bool = False
    """It ends a section that is still being trained on."""

    @property
    def settled(self) -> bool:
        """Whether all that came with the message is done with."""
        return not self.pending and not self.ends_section


@dataclass(frozen=True)
class _Samples:
    receipt: Receipt
    frames: list[int]
    rows: SlotRows

    def split(self, count: int) -> tuple[_Samples, _Samples]:
        """Return the first `count` samples, and the rest."""
        first, rest = self.rows.split(count)
        return _Samples(self.receipt, self.frames[:count], first), _Samples(self.receipt, self.frames[count:], rest)


@dataclass(frozen=True)
class _End:
    end: SectionEnd | StreamEnd
    receipt: Receipt | None = None


class SampleQueue(Stream):
    """A first-in first-out queue of samples, divided by the ends of sections and of the stream. Thread-safe.

    One thread puts, into the minibatches that another one will take.

    An end stays at the front until `begin_next_section`, so no minibatch mixes sections and none of a section's samples
    is left behind. Every entry knows its message, which may be acknowledged once all its frames, and those of all
    messages before it, are trained on or refused.

    Args:
        limit: it is full once this many samples wait.
        until_checkpoint: what is settled may be acknowledged only when it is released, by a checkpoint that holds it.
        counts: gone on with.
        passed_sections: gone on with.
        pinned: minibatches lie in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        *,
        limit: int,
        until_checkpoint: bool = False,
        counts: SampleCounts | None = None,
        passed_sections: Iterable[int] = (),
        pinned: bool = False,
    ) -> None:
        self.counts = counts or SampleCounts()
        self.passed_sections = set(passed_sections)
        """Those whose end the loop has passed."""
        self._ended_sections = set(self.passed_sections)
        self.is_complete = False
        """The end of the stream has arrived."""
        self.failure: BaseException | None = None
        """What keeps samples from coming."""
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._limit, self._until_checkpoint = limit, until_checkpoint
        self._slots = BatchSlots(pinned=pinned)
        self._entries: deque[_Samples | _End] = deque()
        self._waiting = 0
        self._in_hand: list[_Samples] = []
        """Those of the last minibatch, until it is marked."""
        self._receipts: deque[Receipt] = deque()
        """In the order of the stream."""
        self._released: list[int] = []
        self._kept: list[int] = []

    def stage(self, arrays: Arrays, rows: npt.NDArray[np.bool_]) -> list[SlotRows]:
        """Copy the training samples of a message to where their minibatches are put together; they do not wait yet.

        Args:
            arrays: the samples (n, …), of equal length.
            rows: bool (n,), which of them to take.
        """
        return self._slots.put(arrays, rows)

    def put_samples(self, sequence: int, perspective: int, frames: list[int], staged: Sequence[SlotRows]) -> None:
        """Append the training samples of a message; returns at once, full or not.

        Args:
            sequence: of the message, which is settled at once if there are no frames.
            perspective: of the frames.
            frames: indices, one per sample.
            staged: the samples, as `stage` returned them.
        """
        with self._changed:
            receipt = Receipt(sequence, perspective, set(frames))
            self._receipts.append(receipt)
            if frames:
                first = 0
                for rows in staged:
                    self._entries.append(_Samples(receipt, frames[first : first + len(rows)], rows))
                    first += len(rows)
                self._waiting += len(frames)
                self._changed.notify_all()

    def put_settled(self, sequence: int) -> None:
        """Note a message that nothing came with."""
        with self.lock:
            self._receipts.append(Receipt(sequence))

    def put_section_end(self, sequence: int, end: SectionEnd) -> None:
        """Append the end of a section; one that has come before, as from an acquisition started anew, ends nothing."""
        with self._changed:
            receipt = Receipt(sequence, ends_section=end.number not in self._ended_sections)
            self._receipts.append(receipt)
            if receipt.ends_section:
                self._ended_sections.add(end.number)
                self._slots.close()
                self._entries.append(_End(end, receipt))
                self._changed.notify_all()

    def put_stream_end(self) -> None:
        """Append the end of the stream."""
        with self._changed:
            self._entries.append(_End(StreamEnd()))
            self.is_complete = True
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Block until the queue is not full; False if it still is after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting < self._limit, timeout_s)

    def first_samples(self) -> Arrays | None:
        """Return samples of the first message that waits, without removing them, or None if there are none."""
        with self.lock:
            waiting = [entry for entry in self._entries if isinstance(entry, _Samples)]
            first = [entry.rows for entry in takewhile(lambda entry: entry.receipt is waiting[0].receipt, waiting)]
        return {name: tensor.numpy() for name, tensor in join_rows(first).items()} if first else None

    def check(self) -> None:
        """Raise what keeps samples from coming, if anything does."""
        if self.failure is not None:
            raise self.failure

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return `size` samples, or fewer only if they are the last before an end.

        Blocks up to `timeout_s`; None if too few have arrived by then, or if an end is at the front.
        """
        with self._changed:
            self._slots.size = size
            if self._in_hand:
                raise RuntimeError("the minibatch before was marked neither as trained on nor as refused")
            if not self._changed.wait_for(lambda: self._is_ready(size), timeout_s):
                return None
            self._in_hand = parts = list(self._pop(size))
            self._waiting -= sum(len(part.frames) for part in parts)
            self._changed.notify_all()
        return join_rows([part.rows for part in parts]) if parts else None

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        """The end at the front, or None while samples come before it or nothing waits."""
        with self.lock:
            front = self._entries[0] if self._entries else None
            return front.end if isinstance(front, _End) else None

    def begin_next_section(self) -> None:
        """Pass the end of a section at the front; on all ranks after the same step."""
        with self.lock:
            front = self._entries[0] if self._entries else None
            if not isinstance(front, _End) or not isinstance(front.end, SectionEnd) or front.receipt is None:
                raise RuntimeError("there is no end of a section at the front of the queue")
            self._entries.popleft()
            self.passed_sections.add(front.end.number)
            front.receipt.ends_section = False

    def mark_trained(self) -> None:
        """Count the samples of the last minibatch as trained on."""
        with self.lock:
            self.counts.trained += self._settle()

    def mark_refused(self, reason: str, samples: int) -> None:
        """Count so many samples as refused that were counted as trained on."""
        with self.lock:
            if samples > 0:
                self.counts.trained -= samples
                self.counts.rejected[reason] += samples

    def refuse_waiting(self, reason: str) -> int:
        """Count all samples that wait as refused, and return their number; ends stay where they are."""
        with self._changed:
            waiting = [entry for entry in self._entries if isinstance(entry, _Samples)]
            self._entries = deque(entry for entry in self._entries if isinstance(entry, _End))
            for entry in waiting:
                entry.receipt.pending.difference_update(entry.frames)
            refused, self._waiting = self._waiting, 0
            if refused:
                self.counts.rejected[reason] += refused
            self._changed.notify_all()
        return refused

    def pending_frames(self) -> dict[int, set[int]]:
        """Return the frames by perspective that have arrived and are neither trained on nor refused."""
        pending: defaultdict[int, set[int]] = defaultdict(set)
        with self.lock:
            for receipt in self._receipts:
                pending[receipt.perspective] |= receipt.pending
        return pending

    def pop_settled(self) -> list[int]:
        """Return the messages that are done with, each once; `release` them when a checkpoint holds them."""
        settled: list[int] = []
        with self.lock:
            while self._receipts and self._receipts[0].settled:
                settled.append(self._receipts.popleft().sequence)
        return settled

    def release(self, sequences: Iterable[int]) -> None:
        """Let these messages be acknowledged."""
        with self.lock:
            self._released.extend(sequences)

    def release_all_settled(self) -> None:
        """Let everything be acknowledged as soon as it is settled: there will be no more checkpoints."""
        with self.lock:
            self._until_checkpoint = False

    def keep_for_restart(self, sequence: int) -> None:
        """Hold back what a trainer that is started again needs: its announcement, its end, what no checkpoint holds."""
        with self.lock:
            self._kept.append(sequence)

    def release_kept(self) -> None:
        """Let what was kept be acknowledged: nothing of the stream will be asked for again."""
        with self.lock:
            self._released += self._kept
            self._kept = []

    def pop_acknowledgeable(self) -> list[int]:
        """Return the messages that may be acknowledged, each once."""
        with self.lock:
            released, self._released = self._released, []
            return released if self._until_checkpoint else released + self.pop_settled()

    def _is_ready(self, size: int) -> bool:
        count = 0
        for entry in self._entries:
            count += 0 if isinstance(entry, _End) else len(entry.frames)
            if count >= size or isinstance(entry, _End):
                return True
        return False

    def _pop(self, size: int) -> Iterator[_Samples]:
        while size > 0 and self._entries and isinstance(entry := self._entries[0], _Samples):
            self._entries.popleft()
            if len(entry.frames) > size:
                entry, rest = entry.split(size)
                self._entries.appendleft(rest)
            size -= len(entry.frames)
            yield entry

    def _settle(self) -> int:
        """Settle the samples of the last minibatch; return their number."""
        in_hand, self._in_hand = self._in_hand, []
        for part in in_hand:
            part.receipt.pending.difference_update(part.frames)
        return sum(len(part.frames) for part in in_hand)
