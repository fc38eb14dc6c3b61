"""The rules by which phase retrieval rests and begins again."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from ptychoflow.acquisition.ptychography.regime import RegimeControl
from ptychoflow.acquisition.settings import AcquisitionSettings, RegimeSettings
from ptychoflow.streaming.events import Regime, Unlabelled
from ptychoflow.streaming.messages import FirstPassResidual, FirstPassScore

RULES = RegimeSettings(psnr_db=20.0, ssim=0.6, consecutive=3, one_in=4, residual_ratio=1.2)


def score(perspective: int, *, psnr_db: float = 22.0, ssim: float = 0.8, constant: float = 18.0) -> FirstPassScore:
    return FirstPassScore(perspective, psnr_db, ssim, constant)


def judge(control: RegimeControl, *scores: FirstPassScore) -> list[str | None]:
    return [control.judge(one) for one in scores]


def monitoring(rules: RegimeSettings = RULES) -> RegimeControl:
    control = RegimeControl(rules)
    judge(control, *map(score, range(rules.consecutive)))
    assert control.regime is Regime.MONITORING
    return control


def test_only_good_perspectives_in_a_row_lead_to_monitoring() -> None:
    control = RegimeControl(RULES)
    assert judge(control, score(0), score(1), score(2, psnr_db=19.9), score(3), score(4)) == [None] * 5
    assert control.regime is Regime.LEARNING
    assert control.judge(score(5)) == "3 perspectives in a row were good enough, the last of them 5"
    assert control.regime is Regime.MONITORING


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (score(9, psnr_db=19.0), "perspective 9: phase PSNR 19 is below 20 dB"),
        (score(9, ssim=0.5), "perspective 9: phase SSIM 0.5 is below 0.6"),
        (score(9, constant=22.5), "perspective 9: phase PSNR 22 is below 22.5 dB, the constant prediction's"),
        (score(9, ssim=math.nan), "perspective 9: phase SSIM nan is below 0.6"),
    ],
)
def test_one_bad_perspective_brings_learning_back_and_says_what_it_lacks(bad: FirstPassScore, reason: str) -> None:
    control = monitoring()
    assert control.judge(score(8)) is None
    assert control.judge(bad) == reason
    assert control.regime is Regime.LEARNING
    assert judge(control, score(10), score(11)) == [None, None], "the count begins anew"


def test_a_score_that_is_told_again_does_not_count_again() -> None:
    control = RegimeControl(RULES)
    assert judge(control, *[score(0)] * 5, score(1)) == [None] * 6
    assert control.regime is Regime.LEARNING


def test_learning_wants_every_perspective_and_monitoring_one_in_m() -> None:
    control = RegimeControl(RULES)
    assert all(control.wants_ground_truth(perspective) for perspective in range(5))
    judge(control, *map(score, range(3)))
    assert [perspective for perspective in range(5, 18) if control.wants_ground_truth(perspective)] == [8, 12, 16]


def test_learning_can_want_fewer_and_begins_anew_when_it_comes_back() -> None:
    control = RegimeControl(RULES.model_copy(update={"learning_one_in": 3}))
    assert [control.wants_ground_truth(index) for index in range(7)] == [True, False, False, True, False, False, True]
    assert control.spares_because is Unlabelled.SPARED
    assert control.set_chosen(Regime.MONITORING) is not None
    assert control.spares_because is Unlabelled.MONITORING
    assert [control.wants_ground_truth(index) for index in (7, 8, 9, 10)] == [False, False, False, True]
    assert control.set_chosen(Regime.LEARNING) is not None
    assert [control.wants_ground_truth(index) for index in (11, 12, 13, 14)] == [True, False, False, True]


def test_what_waits_for_phase_retrieval_is_thinned_out_behind_the_one_under_way() -> None:
    control = RegimeControl(RULES)
    assert all(control.wants_ground_truth(perspective) for perspective in range(12))
    judge(control, *map(score, range(3)))
    assert control.reconsider(under_way=3, waiting=range(4, 12)) == [4, 5, 6, 8, 9, 10]
    assert [control.wants_ground_truth(perspective) for perspective in (12, 13, 14, 15)] == [False, False, False, True]


def test_after_a_failure_the_next_perspective_is_tried() -> None:
    control = monitoring()
    assert [control.wants_ground_truth(perspective) for perspective in (3, 4)] == [True, False]
    control.ground_truth_failed()
    assert [control.wants_ground_truth(perspective) for perspective in (5, 6)] == [True, False]


def test_what_people_chose_holds_until_they_let_the_scores_decide() -> None:
    control = RegimeControl(RULES)
    assert control.set_chosen(Regime.MONITORING) == "chosen by a command"
    assert control.set_chosen(Regime.MONITORING) is None
    assert control.judge(score(0, psnr_db=1.0)) is None
    assert control.regime is Regime.MONITORING
    assert control.set_chosen(None) is None
    assert control.judge(score(1, psnr_db=1.0)) is not None
    assert control.regime is Regime.LEARNING


def test_without_a_threshold_the_regime_changes_by_command_alone() -> None:
    control = RegimeControl(RegimeSettings())
    assert judge(control, *map(score, range(50))) == [None] * 50
    assert control.regime is Regime.LEARNING


def test_a_threshold_without_an_edge_is_refused() -> None:
    with pytest.raises(ValidationError, match="need an edge"):
        AcquisitionSettings(regime=RULES, edge=False)


def residual(perspective: int, value: float, frames: int = 48) -> FirstPassResidual:
    return FirstPassResidual(perspective, frames, value)


def scored_well(perspective: int, value: float | None) -> FirstPassScore:
    return FirstPassScore(perspective, 22.0, 0.8, 18.0, value)


def monitoring_with_residuals(rules: RegimeSettings = RULES) -> RegimeControl:
    """The largest residual of the last three good perspectives is 0.05."""
    control = RegimeControl(rules)
    judge(control, *[scored_well(perspective, value) for perspective, value in enumerate((0.04, 0.05, 0.03))])
    assert control.regime is Regime.MONITORING
    return control


def test_badly_explained_frames_bring_learning_back_within_their_perspective() -> None:
    control = monitoring_with_residuals()
    assert control.wants_ground_truth(3)
    assert judge(control, residual(4, 0.059), residual(4, math.nan), residual(4, 0.045)) == [None] * 3
    assert not control.would_want(4)
    assert control.judge(residual(4, 0.0601, frames=36)) == (
        "perspective 4: after 36 frames the residual 0.0601 is more than 1.2 times the 0.05 of perspectives that were "
        "good enough"
    )
    assert control.regime is Regime.LEARNING
    assert control.wants_ground_truth(4)


def test_nothing_leads_to_monitoring_while_the_newest_frames_are_badly_explained() -> None:
    control = RegimeControl(RULES)
    judge(control, residual(2, 0.04), residual(7, 0.2), residual(6, 0.04))
    scores = [scored_well(perspective, 0.05) for perspective in range(4)]
    assert judge(control, *scores) == [None] * 4
    judge(control, residual(7, 0.05))
    assert control.judge(scored_well(4, 0.05)) is not None
    assert control.regime is Regime.MONITORING


def test_a_false_alarm_is_learned_from() -> None:
    """A perspective that was good enough after all: what its frames had is no alarm again."""
    control = monitoring_with_residuals()
    assert control.judge(residual(4, 0.07)) is not None
    judge(control, *[scored_well(perspective, value) for perspective, value in enumerate((0.07, 0.04, 0.04), 4)])
    assert control.regime is Regime.MONITORING
    assert judge(control, residual(7, 0.07), residual(8, 0.08)) == [None, None]
    assert control.judge(residual(9, 0.085)) is not None


@pytest.mark.parametrize("known", [(None, None, None), (0.05, None, 0.05)])
def test_with_too_few_residuals_of_good_perspectives_they_decide_nothing(
    known: tuple[float | None, ...],
) -> None:
    control = RegimeControl(RULES)
    judge(control, *[scored_well(perspective, value) for perspective, value in enumerate(known)])
    assert judge(control, residual(3, 1.0), residual(4, 1.0)) == [None, None]
    assert control.regime is Regime.MONITORING


def test_residuals_decide_nothing_below_the_ratio_or_when_people_have_chosen() -> None:
    control = monitoring_with_residuals(RULES.model_copy(update={"residual_ratio": 1000.0}))
    assert control.judge(residual(4, 1.0)) is None
    control = monitoring_with_residuals()
    control.set_chosen(Regime.MONITORING)
    assert control.judge(residual(4, 1.0)) is None
    assert control.regime is Regime.MONITORING
