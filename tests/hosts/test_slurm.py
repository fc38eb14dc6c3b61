"""The manual's SLURM job on a cluster of two nodes: submitted, interrupted in mid-run, and gone on with to its end."""

from __future__ import annotations

import re
from pathlib import Path

import beamline
import pytest
import slurm
from support import wait_until

pytestmark = [pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing()), pytest.mark.timeout(600)]
NODES = ("n9", "n10")
"""By number n9 comes before n10, as text behind it."""


@pytest.fixture
def cluster(tmp_path: Path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "slurm").mkdir()
    with slurm.cluster(NODES, files=tmp_path / "slurm", folder=tmp_path / "shared") as up:
        beamline.prepare(up.folder)
        up.environment |= beamline.environment(up.folder)
        yield up


def submitted(cluster: slurm.Cluster) -> str:
    """Submit the job as the manual does, with less of everything; return its number."""
    options = ("--nodes", "2", "--cpus", "2", "--time", "20")
    return re.search(r"\d+", cluster.run("ptychoflow", "submit", *options, "--now", "beamline.toml"))[0]


def back_in_the_queue(cluster: slurm.Cluster, number: str) -> None:
    """Wait until the job has ended in order, then have it started again."""
    wait_until(lambda: cluster.job(number)["JobState"] == "PENDING", timeout_s=60)
    assert beamline.summary(cluster.folder)["interrupted"]
    # SLURM itself waits two minutes; in the second of the requeue a node takes the job for one that was killed
    cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now+4")


def checkpoint(folder: Path) -> str:
    return max(
        (path.parent.name for path in beamline.run_folder(folder).checkpoints.glob("step-????????/complete.json")),
        default="",
    )


def test_a_job_that_is_requeued_in_mid_run_and_one_whose_time_is_up_go_on_and_end_well(cluster: slurm.Cluster):
    number, folder = submitted(cluster), cluster.folder

    wait_until(lambda: bool(checkpoint(folder)), timeout_s=120)
    assert beamline.counts(folder)["acquired"] < beamline.FRAMES, "it was to be requeued in mid-scan"
    cluster.run("scontrol", "requeue", number)
    back_in_the_queue(cluster, number)

    then = checkpoint(folder)
    wait_until(lambda: checkpoint(folder) > then, timeout_s=120)
    assert beamline.counts(folder)["acquired"] < beamline.FRAMES, "its time was to be up in mid-scan"
    # what SLURM does two minutes before the time is up
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    back_in_the_queue(cluster, number)

    wait_until(lambda: cluster.job(number)["JobState"] not in {"PENDING", "RUNNING", "COMPLETING"}, timeout_s=240)
    job, said = cluster.job(number), (folder / f"{beamline.NAME}-{number}.log").read_text()
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "2"), said[-3000:]
    assert "Killed" not in said, "all parts end in order"
    assert beamline.counts(folder)["resumed"] == 2
    beamline.assert_whole(folder)

    again = cluster.run("sbatch", "--wait", f"{beamline.NAME}.sbatch")
    number = re.search(r"\d+", again)[0]
    assert "there is nothing to do" in (folder / f"{beamline.NAME}-{number}.log").read_text()
