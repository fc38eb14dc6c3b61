"""The receiver's own process: what a full disk and an error that nobody has thought of do to it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from live_scans import SCAN, SETTINGS, ScriptDecoder, Taken, positions_m, whole_series
from support import free_ports, wait_until

from ptychoflow.acquisition.detectors.arrivals_file import (
    DROPPED,
    LISTENING,
    STOPPED,
    ArrivalsReader,
    ArrivalsWriter,
    arrivals_files,
)
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.message import Message
from ptychoflow.acquisition.detectors.position_sender import PositionSender
from ptychoflow.acquisition.detectors.receiver import Receiver
from ptychoflow.acquisition.detectors.receiver_messages import ReceiverFailed, ReceiverJob, ReceiverStatus
from ptychoflow.acquisition.detectors.receiver_process import STOOD_STILL_S, ReceivedQueue, _drain, _write
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.detectors.sources import make_decoder
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.scan import Ending
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
        recalls = False

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


def test_a_receiver_that_ends_by_itself_does_not_abort(tmp_path: Path) -> None:
    """It waits for the end of its input meanwhile, for which Python must not be asked."""
    (tmp_path / "file").touch()
    job = msgspec.json.encode(ReceiverJob.of(LiveSettings.model_validate(SETTINGS), tmp_path / "file")).decode()
    command = [sys.executable, "-m", "ptychoflow.acquisition.detectors.receiver_process", job]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(20) == 0
        assert "File exists" in msgspec.json.decode(process.stdout.read(), type=ReceiverFailed).reason
        assert process.stderr.read() == b""


def watched_folder(folder: Path) -> dict[str, Any]:
    """Return settings of sources of which a test needs no more than a folder."""
    frames = {"kind": "watched-folder", "folder": folder, "series": "file", "pattern": "*", "earlier_files": True}
    return {"frames": frames, "positions": {"kind": "position-sender", "port": free_ports(1)[0]}}


def came(arrivals: Path) -> list[Message]:
    with contextlib.closing(ArrivalsReader(arrivals)) as reader:
        return list(reader.read())


def test_a_receiver_goes_on_while_nobody_reads_how_it_stands(tmp_path: Path) -> None:
    """The acquisition may be stopped, as by a debugger, for as long as it likes."""
    folder = tmp_path / "watched"
    folder.mkdir()
    settings = LiveSettings.model_validate(SETTINGS | watched_folder(folder))
    job = msgspec.json.encode(ReceiverJob.of(settings, tmp_path / "arrivals")).decode()
    command = [sys.executable, "-m", "ptychoflow.acquisition.detectors.receiver_process", job]
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, b" ")
    os.set_blocking(full, True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=full) as process:
        os.close(full)
        np.save(folder / "a.npy", np.ones((1, 8, 8), np.uint16))
        try:
            wait_until(lambda: [message.source for message in came(tmp_path / "arrivals")].count(0) == 3)
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(unread)
    assert came(tmp_path / "arrivals")[-1].source == STOPPED


def test_when_something_came_is_told_by_the_clock_as_it_is_set_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How late an image is was off by what the clock had been set by, until the receiver was started again."""
    (tmp_path / "watched").mkdir()
    settings = LiveSettings.model_validate(SETTINGS | watched_folder(tmp_path / "watched"))
    with contextlib.closing(Receiver(settings, tmp_path / "arrivals", warn=pytest.fail)) as receiver:
        wait_until(lambda: receiver.attend() is not None)
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() + 3600.0)
        np.save(tmp_path / "watched" / "a.npy", np.ones((1, 8, 8), np.uint16))
        wait_until(lambda: receiver.attend() is not None and len(came(tmp_path / "arrivals")) > 2)
        newest = came(tmp_path / "arrivals")[-1]
        assert time.time() - 20.0 < receiver.time_of_day_s(newest.received_at_s) <= time.time()


class Files:
    """A source that can be asked again, with more than memory takes."""

    recalls = True
    contents = tuple(number.to_bytes(2, "big") * 500 for number in range(60))
    delivered = 0

    def drain(self, deliver, stop) -> None:
        for content in self.contents:
            deliver([content])
            self.delivered += 1


def test_what_can_be_asked_for_again_waits_for_a_slow_disk_and_leaves_room_for_what_cannot(tmp_path: Path) -> None:
    received, stop, broken = ReceivedQueue(20_000), threading.Event(), threading.Event()
    files, failures = Files(), queue.SimpleQueue()
    draining = threading.Thread(target=_drain, args=(files, 0, received, stop, broken, failures))
    draining.start()
    wait_until(lambda: files.delivered >= 10)
    received.put(1, [bytes(10_000)])
    assert received.take_dropped() == 0
    writing = threading.Thread(
        target=_write,
        args=(received, ArrivalsWriter(tmp_path, ["files", "other"]), Source(), stop, broken, failures, io.BytesIO()),
    )
    writing.start()
    draining.join(20)
    stop.set()
    writing.join(20)
    came = [message for message in ArrivalsReader(tmp_path).read() if message.source != STOPPED]
    assert [bytes(message.parts[0]) for message in came if message.source == 0] == list(Files.contents)
    assert [message.source for message in came if message.source] == [1]


class StuckDisk(ArrivalsWriter):
    """A writer to a disk that takes nothing while `stuck` is set."""

    stuck = threading.Event()

    def append_all(self, messages) -> None:
        if self.stuck.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().append_all(messages)


class Answers(io.RawIOBase):
    """Keeps what a receiver has said last."""

    status = ReceiverStatus("", 0.0, 0.0)
    said = 0

    def write(self, line) -> int:
        self.status, self.said = msgspec.json.decode(bytes(line), type=ReceiverStatus), self.said + 1
        return len(line)


def test_what_waits_for_a_slow_disk_is_not_given_up(tmp_path: Path) -> None:
    """A disk takes nothing for longer than frames wait for positions and than a series may be silent."""
    events, taken = whole_series(SCAN.perspective(0)), Taken()
    received, stop, answers = ReceivedQueue(1 << 30), threading.Event(), Answers()
    writer = StuckDisk(tmp_path, ["frames"])
    writing = threading.Thread(
        target=_write, args=(received, writer, Source(), stop, threading.Event(), queue.SimpleQueue(), answers)
    )
    taken.scan = LiveScan(
        LiveSettings.model_validate(
            {**SETTINGS, "join": SETTINGS["join"] | {"wait_s": 0.2}, "idle_s": 0.2, "perspectives": 1}
        ),
        ArrivalsReader(tmp_path),
        [ScriptDecoder([arrival for _, arrival in events])],
        attend=lambda: answers.status.written_until_s,
        probe=None,
        ledger=taken.ledger,
        warn=taken.warnings.append,
    )

    def receive(numbers: range) -> None:
        for number in numbers:
            received.put(0, [number.to_bytes(4, "big")])

    writing.start()
    try:
        receive(range(20))
        wait_until(lambda: taken.scan.table.first is not None or taken.scan.advance())
        writer.stuck.set()
        receive(range(20, len(events)))
        said, began_s = answers.said, time.monotonic()
        wait_until(lambda: taken.scan.advance() or (answers.said > said + 2 and time.monotonic() > began_s + 0.5))
        writer.stuck.clear()
        taken.run()
    finally:
        writer.stuck.clear()
        stop.set()
        writing.join(20)
    taken.assert_shows(SCAN.perspective(0), range(len(SCAN.perspective(0))))
    assert taken.endings == [Ending.COMPLETE]


def test_a_clock_that_is_set_gives_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    received = ReceivedQueue(1 << 20)
    received.put(0, [b"frame"])
    monkeypatch.setattr(time, "time", lambda: 4e9)
    received.put(0, [b"frame"])
    first, second = received.take(1.0)
    assert 0 <= second.received_at_s - first.received_at_s < 60
    assert received.empty_at_s is not None
    assert 0 <= received.empty_at_s - second.received_at_s < 60


def test_what_came_while_a_receiver_stood_still_is_not_late(tmp_path: Path) -> None:
    """Its process was stopped for longer than frames wait: their positions wait at its socket."""
    folder, scan = tmp_path / "watched", SCAN.perspective(0)
    folder.mkdir()
    sources = watched_folder(folder)
    sources["frames"] |= {"series": "name", "settle_s": 0.05}
    settings = LiveSettings.model_validate(SETTINGS | sources)
    wait_s = settings.join.wait_s
    with (
        contextlib.closing(Receiver(settings, tmp_path / "arrivals", warn=pytest.fail)) as receiver,
        contextlib.closing(ArrivalsReader(tmp_path / "arrivals")) as arrivals,
        PositionSender(port=sources["positions"]["port"]) as sender,
    ):
        live = LiveScan(
            settings,
            arrivals,
            [make_decoder(source) for source in settings.sources],
            attend=receiver.attend,
            probe=None,
            ledger=Ledger(),
            warn=pytest.fail,
        )
        sender.begin()
        sender.send(positions_m(scan, [0]))
        for number in range(3):
            np.save(folder / f"a_{number}.npy", scan.read(number, number + 1))

        def placed() -> int:
            live.advance()
            series = live.table.first
            assert series is None or not series.joiner.unplaced
            return 0 if series is None else len(series.joiner.placed)

        wait_until(lambda: placed() == 1)
        assert receiver.pid is not None
        os.kill(receiver.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        sender.send(positions_m(scan, [1, 2]))
        wait_until(lambda: time.monotonic() > stopped_s + wait_s)
        os.kill(receiver.pid, signal.SIGCONT)
        wait_until(lambda: placed() == 3)


def test_the_time_for_which_the_process_stood_still_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"s": 100.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["s"])
    received = ReceivedQueue(1 << 20)
    received.runs()

    def after_s(passed_s: float) -> float:
        before_s = received.now_s()
        clock["s"] += passed_s
        received.put(0, [b"frame"])
        (message,) = received.take(0.0)
        assert received.empty_at_s == message.received_at_s
        return message.received_at_s - before_s

    assert after_s(0.9 * STOOD_STILL_S) == pytest.approx(0.9 * STOOD_STILL_S), "it ran"
    assert after_s(60.0) == pytest.approx(0.0)
    assert after_s(0.1) == pytest.approx(0.1)
