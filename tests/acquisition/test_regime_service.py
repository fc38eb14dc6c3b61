"""The regimes in the service: what is withdrawn, skipped, counted and said."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from acquisition_runs import MANY, TRUE_OBJECT, hub_into, run_acquisition
from support import wait_until

from ptychoflow.acquisition.ptychography.regime import RegimeControl
from ptychoflow.acquisition.ptychography.service import acquire
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult, GroundTruthWorker
from ptychoflow.acquisition.settings import AcquisitionSettings, RegimeSettings
from ptychoflow.acquisition.source_settings import HoldOut, RoleSettings
from ptychoflow.streaming.commands import CommandHub, CommandSender, Pause, Resume, SetRegime
from ptychoflow.streaming.events import (
    AnyEvent,
    GroundTruthSkipped,
    PartState,
    PartStatus,
    Regime,
    RegimeChanged,
    RegimeRules,
    Unlabelled,
)
from ptychoflow.streaming.messages import FirstPassScore
from ptychoflow.streaming.settings import NetworkSettings, RunContext


def test_phase_retrieval_that_waits_is_withdrawn_while_the_edge_is_good_and_goes_on_when_it_no_longer_is(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, poll = RegimeControl.judge, GroundTruthWorker.poll
    judged, polled = [], []

    def judge_and_note(control: RegimeControl, score: FirstPassScore) -> str | None:
        judged.append(score.perspective)
        return judge(control, score)

    def poll_once_the_last_was_scored(worker: GroundTruthWorker, timeout_s: float = 0.0) -> GroundTruthResult | None:
        whole_scan_waits = bool(polled) or len(worker.pending) == len(psnr_db)
        if not whole_scan_waits or len(judged) < len(polled):
            return None
        if (result := poll(worker, timeout_s)) is not None:
            polled.append(result.perspective)
        return result

    monkeypatch.setattr(RegimeControl, "judge", judge_and_note)
    monkeypatch.setattr(GroundTruthWorker, "poll", poll_once_the_last_was_scored)
    settings = AcquisitionSettings(
        roles=RoleSettings(hold_out=HoldOut.LAST_PERSPECTIVE),
        regime=RegimeSettings(psnr_db=20.0, consecutive=2, one_in=4),
    )
    psnr_db = dict.fromkeys(range(12), 25.0) | {6: 15.0, 10: 15.0}

    outcome = run_acquisition(network, tmp_path, source=MANY, settings=settings, psnr_db=psnr_db)

    assert polled == judged == [0, 1, 2, 6, 10, 11]
    assert sorted(outcome.edge.references) == polled
    skipped = [event.perspective for event in outcome.events if isinstance(event, GroundTruthSkipped)]
    assert skipped == [3, 4, 5, 7, 8, 9]
    assert [event for event in outcome.events if isinstance(event, RegimeRules)] == [RegimeRules(20.0, None)]
    changes = [event for event in outcome.events if isinstance(event, RegimeChanged)]
    assert [(event.regime, event.perspective) for event in changes] == [(Regime.MONITORING, 3), (Regime.LEARNING, 12)]
    assert changes[1].reason == "perspective 6: phase PSNR 15 is below 20 dB"
    assert outcome.ranks[0].ends == list(range(12))
    assert {perspective for perspective, _ in outcome.samples} <= {0, 1, 2, 6, 10}
    assert len(outcome.edge.frames) == 12 * 16
    counts = outcome.counts
    assert counts.unlabelled_because == {Unlabelled.MONITORING: 6 * 16}
    assert counts.acquired == counts.samples + counts.void + counts.held_out + counts.unlabelled


def test_people_can_choose_monitoring(network: NetworkSettings, tmp_path: Path) -> None:
    events: list[AnyEvent] = []
    settings = AcquisitionSettings(trainer=False, edge=False, rate_hz=100.0, regime=RegimeSettings(one_in=5))
    options = {"network": network, "run": RunContext("test", tmp_path, seed=1), "stop": threading.Event()}
    service = threading.Thread(target=acquire, args=(MANY, settings, TRUE_OBJECT), kwargs=options)
    with (
        closing(hub_into(events, network, tmp_path)),
        closing(CommandHub(network)),
        closing(CommandSender(network)) as sender,
    ):
        for command in (SetRegime(Regime.MONITORING), Pause()):
            sender.send(command)
        service.start()
        wait_until(lambda: any(isinstance(event, PartStatus) and event.state is PartState.PAUSED for event in events))
        sender.send(Resume())
        service.join()
    (change,) = (event for event in events if isinstance(event, RegimeChanged))
    assert (change.regime, change.reason) == (Regime.MONITORING, "chosen by a command")
    last = max(change.perspective - 1, 0)
    assert last < 6
    skipped = [event.perspective for event in events if isinstance(event, GroundTruthSkipped)]
    assert skipped == [perspective for perspective in range(last, 12) if (perspective - last) % 5]
