"""Telemetry that comes together where no launcher runs."""

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support import wait_until

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import AcquisitionCounts, Part, PartState, PartStatus
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.workflow.configuration.config import Config, load_config, write_config
from ptychoflow.workflow.launching.ports import resolve_ports
from ptychoflow.workflow.launching.run_folder import claimed
from ptychoflow.workflow.launching.telemetry_collection import collected_telemetry


@pytest.fixture
def config(tmp_path: Path) -> Config:
    loaded = load_config("simulated", assignments=[f"run.directory={tmp_path}", "run.name=run", "dashboard.port=0"])
    return loaded.model_copy(update={"network": resolve_ports(loaded.network, ranks=1)})


@pytest.fixture
def folder(config: Config) -> RunFolder:
    folder = config.run.context().folder
    folder.path.mkdir()
    return folder


def void_frames(count: int) -> AcquisitionCounts:
    return AcquisitionCounts(count, count, 0, count, 0, 0, 0, 0, 0, 0)


def collect(config: Config, folder: RunFolder, *counts: AcquisitionCounts) -> None:
    with collected_telemetry(config, folder), closing(TelemetrySender(config.network, part=Part.EDGE)) as sender:
        for one in counts:
            sender.send(one)


def frames(folder: RunFolder) -> tuple[int, int, int]:
    ledger = json.loads(folder.summary.read_text())["frames"]
    return ledger["acquired"], ledger["void"], ledger["lost"]


def test_what_the_parts_tell_becomes_summary_and_report(config: Config, folder: RunFolder) -> None:
    collect(config, folder, void_frames(7))
    assert frames(folder) == (7, 7, 0)
    assert len(folder.telemetry.read_text().splitlines()) == 1
    assert folder.config.exists()
    assert folder.environment.exists()
    assert folder.report.exists()


def test_a_hub_that_is_started_again_leaves_the_results_of_a_run_that_has_ended(
    config: Config, folder: RunFolder
) -> None:
    collect(config, folder, void_frames(7))
    results = {path: path.read_bytes() for path in (folder.summary, folder.report, folder.config)}
    collect(config.model_copy(update={"run": config.run.model_copy(update={"seed": 99})}), folder)
    assert {path: path.read_bytes() for path in results} == results


def test_a_hub_that_is_started_again_in_mid_run_goes_on_from_what_was_told(config: Config, folder: RunFolder) -> None:
    collect(config, folder, void_frames(7))
    folder.summary.unlink()
    collect(config, folder)
    assert frames(folder) == (7, 7, 0), "what was told before is known, although nothing came"
    collect(config, folder, void_frames(9))
    assert frames(folder) == (9, 9, 0)


@pytest.mark.parametrize(
    ("last_word", "interrupted"),
    [
        (PartStatus(PartState.RUNNING), True),
        (PartStatus(PartState.DONE, stopped=True), True),
        (PartStatus(PartState.DONE), False),
    ],
)
def test_a_run_whose_acquisition_did_not_come_to_its_end_was_interrupted(
    config: Config, folder: RunFolder, last_word: PartStatus, interrupted: bool
) -> None:
    with (
        collected_telemetry(config, folder),
        closing(TelemetrySender(config.network, part=Part.ACQUISITION)) as acquisition,
    ):
        acquisition.send(AcquisitionCounts(9, 0, 0, 0, 9, 0, 0, 0, 0, 0))
        acquisition.send(last_word)
    summary = json.loads(folder.summary.read_text())
    assert summary["interrupted"] is interrupted
    assert summary["ended_well"] is not interrupted


def test_two_hubs_cannot_collect_in_one_folder(
    config: Config, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimed.__wrapped__, "__defaults__", (0.0,))
    other = config.model_copy(update={"network": resolve_ports(load_config("simulated").network, ranks=1)})
    with (
        collected_telemetry(config, folder),
        pytest.raises(UserError, match="is still going on"),
        collected_telemetry(other, folder),
    ):
        pass


def test_the_dashboard_of_a_finished_run_started_and_stopped_again_changes_nothing(
    config: Config, folder: RunFolder, tmp_path: Path
) -> None:
    collect(config, folder, void_frames(7))
    before = folder.summary.read_bytes()
    write_config(config, tmp_path / "config.toml")
    log = folder.log("dashboard")
    command = [sys.executable, "-m", "ptychoflow", "dashboard", "--config", str(tmp_path / "config.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: log.exists() and "http://" in log.read_text(), timeout_s=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, process.communicate()[1]
        finally:
            process.kill()
    assert folder.summary.read_bytes() == before
