"""Mean rates: while something came, without what lies between two parts of a run."""

from __future__ import annotations

import pytest

from ptychoflow.streaming.state.rate import Rate

NIGHT_S = 40_000.0


def rate_of(reports: list[tuple[float, int]]) -> Rate:
    rate = Rate()
    for time_s, count in reports:
        rate.add(time_s, count)
    return rate


@pytest.mark.parametrize("reports", [[], [(10.0, 7)], [(10.0, 7), (12.0, 7)], [(10.0, 7), (10.0 + NIGHT_S, 90)]])
def test_without_two_reports_that_differ_there_is_none(reports):
    assert rate_of(reports).per_s(otherwise=3.5) == 3.5


def test_counts_from_the_first_report_to_the_one_in_which_it_last_rose():
    assert rate_of([(10.0, 100), (12.0, 100), (14.0, 300), (16.0, 300), (18.0, 500), (40.0, 500)]).per_s(
        otherwise=None
    ) == pytest.approx(400 / 8)


def test_the_night_before_a_resume_is_not_counted():
    evening = [(0.0, 0), (1.0, 50), (2.0, 100), (30.0, 100)]
    morning = [(NIGHT_S, 90), (NIGHT_S + 1, 100), (NIGHT_S + 2, 150), (NIGHT_S + 3, 200)]
    assert rate_of(evening + morning).per_s(otherwise=None) == pytest.approx(200 / 5)
