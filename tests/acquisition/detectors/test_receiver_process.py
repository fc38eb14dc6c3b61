"""The receiver's own process: what a full disk and an error that nobody has thought of do to it."""

from __future__ import annotations

import errno
import io
import os
import queue
import threading
from pathlib import Path

import pytest
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals_file import (
    DROPPED,
    LISTENING,
    STOPPED,
    ArrivalsReader,
    ArrivalsWriter,
    arrivals_files,
)
from ptychoflow.acquisition.detectors.receiver_process import ReceivedQueue, _drain, _write
from ptychoflow.streaming.errors import UserError


class Source:
    """Begins a series with every message that starts with `begin`."""

    @staticmethod
    def begins_series(parts) -> bool:
        return bytes(parts[0]).startswith(b"begin")


class FullDisk(ArrivalsWriter):
    """A writer to a disk that takes nothing until `refusals` calls have been made."""

    refusals = 3

    def append_all(self, messages) -> None:
        if any(message.source not in (LISTENING, STOPPED) for message in messages) and self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().append_all(messages)


def test_what_a_full_disk_does_not_take_is_kept_in_memory_and_written_when_it_does(tmp_path: Path) -> None:
    received, stop = ReceivedQueue(1 << 20), threading.Event()
    sent = [b"begin 1", b"frame 1", b"frame 2", b"begin 2", b"frame 1"]
    for message in sent:
        received.put(0, [message])
    writer, answers = FullDisk(tmp_path, ["frames"]), io.BytesIO()
    writing = threading.Thread(
        target=_write, args=(received, writer, Source(), stop, threading.Event(), queue.SimpleQueue(), answers)
    )
    writing.start()
    try:
        wait_until(lambda: len(list(ArrivalsReader(tmp_path).read())) == len(sent))
    finally:
        stop.set()
        writing.join(20)
    came = [message for message in ArrivalsReader(tmp_path).read() if message.source != STOPPED]
    assert [bytes(message.parts[0]) for message in came] == sent
    assert all(message.source != DROPPED for message in came)
    assert len(arrivals_files(tmp_path)) == 2, "one for each series"
    assert b"No space left" in answers.getvalue()


def test_a_receiver_that_is_to_stop_does_not_wait_for_a_full_disk(tmp_path: Path) -> None:
    received, stop = ReceivedQueue(1 << 20), threading.Event()
    received.put(0, [b"frame"])
    stop.set()
    writer = FullDisk(tmp_path, ["frames"])
    writer.refusals = 1_000_000
    _write(received, writer, Source(), stop, threading.Event(), queue.SimpleQueue(), io.BytesIO())


def test_an_error_that_nobody_has_thought_of_ends_the_receiver_and_not_one_source_of_it(tmp_path: Path) -> None:
    class Failing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def drain(self, deliver, stop) -> None:
            deliver([b"frame"])
            raise self.error

    received, stop, broken = ReceivedQueue(1 << 20), threading.Event(), threading.Event()
    failures: queue.SimpleQueue[str] = queue.SimpleQueue()
    _drain(Failing(UserError("no such host")), 0, received, stop, broken, failures)
    assert failures.get_nowait() == "no such host"
    assert not broken.is_set()
    with pytest.raises(AttributeError):
        _drain(Failing(AttributeError("codec")), 0, received, stop, broken, failures)
    assert broken.is_set()
    _write(received, ArrivalsWriter(tmp_path, ["frames"]), Source(), stop, broken, failures, io.BytesIO())
    assert [bytes(one.parts[0]) for one in ArrivalsReader(tmp_path).read() if one.source == 0] == [b"frame"] * 2
