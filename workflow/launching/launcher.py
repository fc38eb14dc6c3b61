"""`ptychoflow run`: all parts of a run on this host, from the first check to the report."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from ptychoflow.dashboard.address import page_url
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.token import make_token
from ptychoflow.streaming.commands import AnyCommand, CommandHub, StopRun
from ptychoflow.streaming.durable_file import move_durably, sync_names, write_durably
from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.events import Part, Telemetry, TrainingResumed, TrainingStep
from ptychoflow.streaming.private_folder import is_made_by_us, private_folder
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.workflow.configuration.config import AnyConfig, Config, load_config
from ptychoflow.workflow.exit_status import FAILED_STATUS, INTERRUPTED_STATUS
from ptychoflow.workflow.launching.dashboard_token import TOKEN_VARIABLE, show_token
from ptychoflow.workflow.launching.initial_weights import with_found_weights
from ptychoflow.workflow.launching.links import require_links
from ptychoflow.workflow.launching.part_checks import check_parts
from ptychoflow.workflow.launching.part_commands import part_command
from ptychoflow.workflow.launching.part_process import interrupted_by_signals, stop_on_signals
from ptychoflow.workflow.launching.ports import (
    choose_port,
    network_places,
    require_distinct,
    require_free,
    resolve_ports,
    served_places,
    warn_if_open,
    without_made_folder,
)
from ptychoflow.workflow.launching.run_folder import (
    claimed,
    create_run_folder,
    describe_run,
    remove_what_a_resume_needs,
)
from ptychoflow.workflow.launching.run_parts import RunParts
from ptychoflow.workflow.launching.source_check import check_source
from ptychoflow.workflow.launching.supervision import PartCommand, PartEnd
from ptychoflow.workflow.logs import log_to_file, print_error
from ptychoflow.workflow.progress import log_for_people
from ptychoflow.workflow.results import complaint, headline, write_results
from ptychoflow.workflow.summary import Summary

log = logging.getLogger(__name__)

START_ORDER = (Part.DASHBOARD, Part.OUTPUTS, Part.EDGE, Part.TRAINER, Part.ACQUISITION)


def launch(config: AnyConfig) -> int:
    """Run a whole workflow on this host in a new folder; blocks until it has ended. Return the command's exit status.

    0: all parts ended well, every frame is accounted for, and there was something to learn from. 1: a part failed, the
    ledger does not balance, or what should have been learnt from got no ground truth.
    130: interrupted, or stopped by a command. The summary and the report are written in each case, and no part is left
    running.

    Raises:
        UserError: before anything starts: the scan or the initial weights cannot be read, a part could not work, a port
            is in use, a host is another one, keys are missing, or the run folder cannot be made.
    """
    config = with_found_weights(config)
    config = config.model_copy(update={"network": without_made_folder(config.network)})
    with interrupted_by_signals(), _sockets_folder(config.network) as scratch:
        config = _checked(config, scratch)
        folder = create_run_folder(config)
        with claimed(folder) as claim:
            return _run(config, folder, claim, scratch)


def relaunch(config: AnyConfig) -> int:
    """Go on with a run in its folder, as `launch` began it; its summary is made from all of its telemetry.

    The folder's `config.toml` is as before unless training went on, or no part failed.

    Raises:
        UserError: the run is still going on, or its folder cannot be written; or as `launch`.
    """
    folder = config.run.context().folder
    with interrupted_by_signals(), claimed(folder) as claim, _sockets_folder(config.network) as scratch:
        config = _checked(config, scratch)
        _remove_left_sockets(folder)
        with _taken_back(folder) as on_begun:
            describe_run(config, folder)
            return _run(config, folder, claim, scratch, on_begun)


def _run(
    config: AnyConfig,
    folder: RunFolder,
    claim: int,
    scratch: Path | None,
    on_begun: Callable[[], None] = lambda: None,
) -> int:
    """Run the parts, and call `on_begun` as soon as the configuration has proved of use."""
    with writing(f"the run folder {folder.path}"):
        log_to_file(folder.log("launcher"))
    log.info("run %s in %s", config.run.name, folder.path)
    warn_if_open(config.network)
    state = RunState()
    if folder.telemetry.exists():
        state.apply_all(TelemetryLog(folder.telemetry))
    stop = threading.Event()
    with stop_on_signals(stop):
        with _telemetry(config, folder, state, on_begun) as reporter, _commanded(config, stop):
            parts = RunParts(_commands(config, folder, scratch), reporter, state, restarts=config.trainer.restarts)
            failure = parts.run(stop, claim=claim, scratch=scratch)
        if failure is None:
            on_begun()
        summary, report = write_results(state, folder, interrupted=stop.is_set(), failed=failure is not None)
        log.info("report: %s", report)
    if summary["ended_well"]:
        remove_what_a_resume_needs(folder, config)
    return _conclude(summary, failure, interrupted=stop.is_set())


@contextmanager
def _taken_back(folder: RunFolder) -> Iterator[Callable[[], None]]:
    """Give `config.toml` the content of before at the end of the context, unless what it yields was called by then.

    A launcher that is killed leaves that content beside it, where the next resume finds it.
    """
    earlier, kept = folder.earlier_config, False
    with writing(earlier):
        if not earlier.exists():
            write_durably(earlier, folder.config.read_bytes())

    def keep() -> None:
        nonlocal kept
        if not kept:  # it is called at every step
            kept = True
            earlier.unlink()
            sync_names(folder.path)

    try:
        yield keep
    finally:
        if not kept:
            changed = earlier.read_bytes() != folder.config.read_bytes()
            with writing(folder.config):
                move_durably(earlier, folder.config)
            if changed:
                log.warning(
                    "nothing went on: %s is again as it was before; what was --set has to be given again", folder.config
                )


@contextmanager
def _sockets_folder(network: NetworkSettings) -> Iterator[Path | None]:
    """Make the folder over whose files the parts talk; None where it is said that they talk otherwise."""
    if network.says_where:
        yield None
        return
    with private_folder() as folder:
        yield folder


def _remove_left_sockets(folder: RunFolder) -> None:
    """Remove the folder of sockets that stays when launcher and watchdog are both killed; no part is left by now."""
    before = load_config(file=folder.config).network.sockets_dir
    if before is not None and is_made_by_us(before):
        shutil.rmtree(before, ignore_errors=True)


def _checked(config: AnyConfig, sockets_folder: Path | None) -> AnyConfig:
    """Return the configuration with all ports chosen, once it is sure that all parts can start."""
    if sockets_folder is not None:
        config = config.model_copy(update={"network": config.network.in_folder(sockets_folder)})
    check_source(config)
    check_parts(config)
    config = _with_ports(config)
    require_links(config.network, _parts(config))
    return config


def _with_ports(config: AnyConfig) -> AnyConfig:
    ranks, dashboard = config.trainer.ranks, config.dashboard
    served = served_places(dashboard, config.outputs if isinstance(config, Config) else None)
    require_distinct([*network_places(config.network, ranks=ranks), *served])
    network = resolve_ports(config.network, ranks=ranks)
    for place in served:
        require_free(place)
    if dashboard.enabled and not dashboard.port:
        dashboard = dashboard.model_copy(update={"port": choose_port(network, ranks=ranks)})
    return config.model_copy(update={"network": network, "dashboard": dashboard})


def _parts(config: AnyConfig) -> list[Part]:
    unwanted = set() if config.dashboard.enabled else {Part.DASHBOARD}
    if not (isinstance(config, Config) and config.outputs.chosen):
        unwanted.add(Part.OUTPUTS)
    return [part for part in START_ORDER if part not in unwanted]


def _commands(config: AnyConfig, folder: RunFolder, scratch: Path | None) -> list[PartCommand]:
    commands = [part_command(part, folder, config.trainer, scratch=scratch) for part in _parts(config)]
    page = config.dashboard
    return [_with_token(command, page) if command.part is Part.DASHBOARD else command for command in commands]


def _with_token(command: PartCommand, dashboard: DashboardSettings) -> PartCommand:
    token = make_token()
    show_token(token, page_url(dashboard.host, dashboard.port))
    return replace(command, environment={**command.environment, TOKEN_VARIABLE: token})


@contextmanager
def _telemetry(
    config: AnyConfig, folder: RunFolder, state: RunState, on_training: Callable[[], None]
) -> Iterator[TelemetrySender]:
    """Collect the telemetry of all parts within the context; yields a sender for what the launcher itself observes."""

    def take(telemetry: Telemetry, _arrays: object) -> None:
        state.apply(telemetry)
        log_for_people(telemetry)
        if isinstance(telemetry.event, TrainingStep | TrainingResumed):
            on_training()

    with (
        closing(TelemetryHub(config.network, jsonl=folder.telemetry, on_event=take)),
        closing(TelemetrySender(config.network, part=Part.WORKFLOW)) as sender,
    ):
        yield sender


@contextmanager
def _commanded(config: AnyConfig, stop: threading.Event) -> Iterator[None]:
    """Pass commands on to the parts within the context; the one to stop the run sets `stop`."""

    def take(command: AnyCommand) -> None:
        if isinstance(command, StopRun):
            stop.set()

    with closing(CommandHub(config.network, on_command=take)):
        yield


def _conclude(summary: Summary, failure: PartEnd | None, *, interrupted: bool) -> int:
    log.info("%s", headline(summary))
    if failure is not None:
        print_error(failure.describe())
        return FAILED_STATUS
    if interrupted:
        print_error("interrupted; the summary holds what was done until then")
        return INTERRUPTED_STATUS
    if (unsound := complaint(summary)) is not None:
        print_error(unsound)
        return FAILED_STATUS
    return 0
