"""Telemetry that comes together where no launcher runs."""

import json
from contextlib import closing
from pathlib import Path

from ptychoflow.streaming.events import AcquisitionCounts, Part
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.launching.ports import resolve_ports
from ptychoflow.workflow.launching.telemetry_collection import collected_telemetry


def test_what_the_parts_tell_becomes_summary_and_report(tmp_path: Path) -> None:
    config = load_config("simulated").model_copy(update={"network": resolve_ports(NetworkSettings(), ranks=1)})
    folder = RunFolder(tmp_path)
    with collected_telemetry(config, folder), closing(TelemetrySender(config.network, part=Part.EDGE)) as sender:
        sender.send(AcquisitionCounts(7, 7, 0, 7, 0, 0, 0, 0, 0, 0))
    frames = json.loads(folder.summary.read_text())["frames"]
    assert (frames["acquired"], frames["void"], frames["lost"]) == (7, 7, 0)
    assert len(folder.telemetry.read_text().splitlines()) == 1
    assert folder.config.exists()
    assert folder.environment.exists()
    assert (tmp_path / "report.html").exists()
