"""What every part does around its work, whether the launcher or a person started it."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ptychoflow.streaming.commands import CommandReceiver, StopRun
from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.events import WATCHING, Part, PartState, PartStatus
from ptychoflow.streaming.printable import printable
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import SPEAKERS, TelemetrySender
from ptychoflow.workflow.configuration.config import AnyConfig, load_config
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.exit_status import INTERRUPTED_STATUS
from ptychoflow.workflow.interruption import Interruption
from ptychoflow.workflow.launching.ended_run import refuse_ended_run
from ptychoflow.workflow.launching.lifeline import stop_without_launcher
from ptychoflow.workflow.launching.ports import require_fixed, warn_if_open
from ptychoflow.workflow.launching.processes import GRACE_S
from ptychoflow.workflow.logs import log_to_file

log = logging.getLogger(__name__)

COMMAND_POLL_S = 0.2
STDERR = 2
"""File descriptor of standard error: a crash in a library says there in which call it was."""


@dataclass(frozen=True)
class PartProcess:
    """A part that is about to work."""

    config: AnyConfig
    folder: RunFolder
    stop: threading.Event
    """Set by SIGTERM, by Ctrl-C, and, but for dashboard and outputs, by the command to stop the run; and when nobody is
    left of a launcher that started the part."""
    launched: bool
    """Whether a launcher has started the part, and does what is done once all parts have ended."""


@contextmanager
def part_process(
    part: Part, file: Path | None, assignments: Iterable[str] | None, *, pipeline: PipelineName | None = None
) -> Iterator[PartProcess]:
    """Load the configuration, log to the run's folder, and turn signals into `stop`.

    Exits with status 130 after the work has ended in order because of Ctrl-C.

    Raises:
        UserError: the configuration is wrong, has ports that are 0, or the run folder cannot be written; or the run has
            ended well, and the part is none that watches.
    """
    config = load_config(file=file, assignments=assignments or (), pipeline=pipeline)
    require_fixed(config.network)
    folder = config.run.context().folder
    if part not in WATCHING:
        refuse_ended_run(folder)
    with writing(f"the run folder {folder.path}"):
        log_to_file(folder.log(part))
    faulthandler.enable(STDERR)
    stop, interrupted = threading.Event(), threading.Event()
    with (
        stop_on_signals(stop, interrupted=interrupted),
        stop_without_launcher(stop, grace_s=GRACE_S) as launched,
        _stop_on_command(part, config.network, stop),
        _failure_reported(part, config.network),
    ):
        log.info("%s of run %s starts, process %d", part, config.run.name, os.getpid())
        warn_if_open(config.network)
        yield PartProcess(config, folder, stop, launched)
        log.info("%s has ended", part)
    if interrupted.is_set():
        sys.exit(INTERRUPTED_STATUS)


@contextmanager
def _stop_on_command(part: Part, network: NetworkSettings, stop: threading.Event) -> Iterator[None]:
    """Within the context, the command to stop the run sets `stop`; whoever only watches stays and sees the end.

    Raises:
        UserError: the part's keys are missing or cannot be used.
    """
    if part in WATCHING:
        yield
        return
    ended = threading.Event()
    # opened here: what is wrong with the keys ends the part in one line, and is no traceback of a thread
    commands = CommandReceiver(network, roles=SPEAKERS[part])

    def listen() -> None:
        with closing(commands):
            while not ended.is_set():
                if commands.poll(COMMAND_POLL_S) == StopRun():
                    log.info("asked to stop by a command")
                    stop.set()

    listener = threading.Thread(target=listen, name="stop-command", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


@contextmanager
def _failure_reported(part: Part, network: NetworkSettings) -> Iterator[None]:
    """Tell the hub why the part gives up; what goes well the part tells by itself."""
    try:
        yield
    except Exception as error:
        with closing(TelemetrySender(network, part=part)) as sender:
            sender.send(PartStatus(PartState.FAILED, printable(str(error))))
        raise


@contextmanager
def stop_on_signals(stop: threading.Event, *, interrupted: threading.Event | None = None) -> Iterator[None]:
    """Within the context, SIGTERM, SIGHUP and SIGINT set `stop`, and SIGINT also sets `interrupted`.

    So does a Ctrl-C of before that nobody has noticed. A SIGHUP that is ignored, as `nohup` has it, stays ignored.
    """

    def request_stop(number: int, _frame: FrameType | None) -> None:
        stop.set()
        if number == signal.SIGINT and interrupted is not None:
            interrupted.set()

    with _handling([signal.SIGTERM, signal.SIGINT], request_stop) as previous:
        if any(isinstance(handler, Interruption) and handler.came for handler in previous):
            request_stop(signal.SIGINT, None)
        yield


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within the context, SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does: nothing of what began stays."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling([signal.SIGTERM], interrupt):
        yield


@contextmanager
def _handling(
    signals: list[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[list[object]]:
    """Handle signals within the context, and SIGHUP unless it is ignored; yields what handled them before."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals = [*signals, signal.SIGHUP]
    previous = [signal.signal(number, handler) for number in signals]
    try:
        yield list(previous)
    finally:
        for number, earlier in zip(signals, previous, strict=True):
            signal.signal(number, earlier)
