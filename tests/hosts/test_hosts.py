"""The manual's commands on five hosts: acquisition, two trainer hosts, hub and edge, and what may happen to them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import beamline
import namespaces
import psutil
import pytest
from support import wait_until

pytestmark = [pytest.mark.skipif(bool(namespaces.missing()), reason=namespaces.missing()), pytest.mark.timeout(400)]

ACQUISITION, FIRST, SECOND, HUB, EDGE = "acquisition", "node9", "node10", "hub", "edge"
"""By number node9 comes before node10, as text behind it."""
ROLES = {ACQUISITION: "acquisition", FIRST: "trainer", SECOND: "trainer", HUB: "hub", EDGE: "edge"}
LINK_DOWN_S = 25.0
CONFIGURATION = {"trainer": {"buffer": {"transport": "ucx"}, "wait_until_served_s": 120.0}}


class Site:
    """A run whose parts are started one by one, each on its host, with disks of their own.

    Args:
        hosts: the five.
        folder: holds the configuration, which all have, and each one's disk.
        ranks: of the trainer on each of its hosts.
    """

    def __init__(self, hosts: Mapping[str, namespaces.Host], folder: Path, *, ranks: int) -> None:
        self.hosts, self.folder, self.ranks = hosts, folder, ranks
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str, clock_ahead_s: float = 0.0) -> None:
        """Start what belongs on these hosts, whose clocks are so far ahead."""
        for name in names:
            disk = self.disk(name)
            disk.mkdir(exist_ok=True)
            keys = self._own_keys(name)
            self.parts[name] = self.hosts[name].start(
                *self._command(name), "--config", "beamline.toml",
                "--set", f"run.directory={disk / 'runs'}", "--set", f"network.keys_dir={keys}",
                folder=self.folder, log=self.log(name),
                environment=beamline.environment(self.folder, clock_ahead_s=clock_ahead_s),
            )  # fmt: skip

    def disk(self, name: str) -> Path:
        """Return where a host writes; the trainer's hosts share one."""
        return self.folder / f"disk-{'trainer' if name in (FIRST, SECOND) else name}"

    def log(self, name: str) -> Path:
        """Return the log of what runs on a host."""
        return self.folder / f"{name}.log"

    def counts(self) -> dict[str, int]:
        """Return what the hub has heard."""
        return beamline.counts(self.disk(HUB))

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for something; fail at once when a part fails meanwhile."""

        def holds() -> bool:
            for name, part in self.parts.items():
                assert part.poll() in (None, 0), f"{name}: {self.log(name).read_text()[-3000:]}"
            return condition()

        try:
            wait_until(holds, timeout_s=timeout_s)
        except TimeoutError:
            logs = {name: self.log(name).read_text()[-1500:] for name in self.parts}
            raise AssertionError("\n\n".join(f"{name}: {text}" for name, text in logs.items())) from None

    def acquired(self, share: float) -> None:
        """Wait until this share of the frames is acquired."""
        self.wait_for(lambda: self.counts()["acquired"] >= share * beamline.FRAMES)

    def learnt(self) -> None:
        """Wait until there is a checkpoint."""
        checkpoints = beamline.run_folder(self.disk(FIRST)).checkpoints
        self.wait_for(lambda: any(checkpoints.glob("step-????????/complete.json")))

    def pull_cable(self, name: str) -> None:
        """Take a host's link down for a while."""
        self.hosts[name].set_link(up=False)
        time.sleep(LINK_DOWN_S)
        self.hosts[name].set_link(up=True)

    def rank(self, name: str, local_rank: int = 0) -> psutil.Process | None:
        """Return a rank of the trainer on a host, if it lives."""
        for process in self.hosts[name].processes():
            try:
                if process.environ().get("LOCAL_RANK") == str(local_rank) and "train" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None

    def kill_rank(self, name: str, local_rank: int = 0) -> None:
        """Kill one as the system does that has no memory left."""
        process = self.rank(name, local_rank)
        assert process is not None
        process.kill()

    def ends_well(self, timeout_s: float = 150.0) -> None:
        """Wait until all parts have ended by themselves, then end the hub; every frame is accounted for."""
        working = {name: part for name, part in self.parts.items() if name != HUB}
        self.wait_for(lambda: all(part.poll() == 0 for part in working.values()), timeout_s)
        namespaces.end(self.parts[HUB], signal.SIGINT)
        assert self.parts[HUB].wait(60) == 130, self.log(HUB).read_text()[-3000:]
        beamline.assert_whole(self.disk(HUB))
        for name in self.hosts:
            assert not self.hosts[name].processes(), name

    def _own_keys(self, name: str) -> Path:
        """Give a host the secret of its role and the public keys of all; return the folder."""
        made, own = self.folder / "keys", self.folder / f"keys-{name}"
        shutil.copytree(made / "public", own / "public")
        shutil.copy(made / f"{ROLES[name]}.key_secret", own)
        return own

    def _command(self, name: str) -> list[str]:
        if name not in (FIRST, SECOND):
            return ["ptychoflow", {ACQUISITION: "acquire", HUB: "dashboard", EDGE: "edge"}[name]]
        return [
            *("torchrun", "--nnodes=2", f"--node_rank={(FIRST, SECOND).index(name)}", f"--nproc_per_node={self.ranks}"),
            *(f"--master_addr={self.hosts[FIRST].address}", "--master_port=29500", "--max_restarts=3"),
            *("-m", "ptychoflow", "train"),
        ]


@contextmanager
def site(folder: Path, *, ranks: int = 1, own_name: str | None = None, **changes: Any) -> Iterator[Site]:
    """Yield five hosts with the configuration for them."""
    files = folder / "files"
    files.mkdir()
    with namespaces.network(
        [ACQUISITION, FIRST, SECOND, HUB, EDGE], subnet="10.77.0", files=files, own_name=own_name
    ) as hosts:
        places = {"acquisition_host": ACQUISITION, "trainer_host": FIRST, "hub_host": HUB}
        addresses = {key: hosts[name].address for key, name in places.items()}
        beamline.prepare(folder, CONFIGURATION | {"network": addresses} | changes)
        yield Site(hosts, folder, ranks=ranks)


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as hosts:
        hosts.start(HUB, EDGE, FIRST, SECOND, ACQUISITION)
        yield hosts


def test_two_ranks_a_host_an_edge_that_comes_late_clocks_an_hour_apart_and_names_that_are_loopback(tmp_path: Path):
    with site(tmp_path, ranks=2, own_name="127.0.1.1") as five:
        for name, ahead_s in ((SECOND, 3600), (HUB, -3600)):
            five.start(name, clock_ahead_s=ahead_s)
        five.start(FIRST, ACQUISITION)
        five.acquired(1.0)
        five.start(EDGE)
        five.ends_well()
        buffer = beamline.summary(five.disk(HUB))["buffer"]
        assert buffer["transport"] == "ucx"


@pytest.mark.parametrize(
    ("in_mid_scan", "at_the_end"), [(SECOND, ACQUISITION), (HUB, EDGE), (ACQUISITION, SECOND), (EDGE, HUB)]
)
def test_one_host_after_the_other_loses_its_link_for_a_while(five: Site, in_mid_scan: str, at_the_end: str):
    five.acquired(0.3)
    five.pull_cable(in_mid_scan)
    five.acquired(1.0)
    five.pull_cable(at_the_end)
    five.ends_well()


@pytest.mark.parametrize(("in_mid_scan", "at_the_end"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_ranks_are_killed_in_mid_scan_and_while_the_final_weights_wait_for_the_edge(
    five: Site, in_mid_scan: str, at_the_end: str
):
    five.learnt()
    five.hosts[EDGE].set_link(up=False)
    five.kill_rank(in_mid_scan)
    five.wait_for(lambda: five.counts()["final"] == 1)
    assert five.counts()["resumed"] == 1
    five.kill_rank(at_the_end)
    five.hosts[EDGE].set_link(up=True)
    five.ends_well()
