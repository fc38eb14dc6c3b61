"""Where series of NTNDArrays begin and end: by a PV, by an attribute, by a pause."""

import pytest

from ptychoflow.acquisition.detectors.ntndarray.messages import Began, Ended
from ptychoflow.acquisition.detectors.ntndarray.series import series_rule
from ptychoflow.acquisition.detectors.ntndarray.settings import SeriesByAcquire, SeriesByAttribute, SeriesByPause


@pytest.fixture
def acquire():
    return series_rule(SeriesByAcquire(pv="A", settle_s=0.5))


def test_a_series_lasts_from_the_rise_of_its_pv_until_it_has_settled(acquire):
    assert acquire.acquiring(False, stamp="1", now_s=0.0) == []
    assert acquire.frame({}, now_s=1.0) == ([], None), "nothing is acquired"
    assert acquire.acquiring(True, stamp="2", now_s=2.0) == [Began("2")]
    assert acquire.frame({}, now_s=3.0) == ([], "2")
    assert acquire.pause(now_s=99.0) == [], "a slow detector acquires"
    assert acquire.acquiring(False, stamp="3", now_s=100.0) == []
    assert acquire.frame({}, now_s=100.3) == ([], "2"), "it was on its way"
    assert acquire.pause(now_s=100.7) == []
    assert acquire.pause(now_s=100.9) == [Ended("2", aborted=False)]
    assert acquire.pause(now_s=200.0) == []


def test_the_next_series_ends_the_one_that_has_not_settled(acquire):
    acquire.acquiring(True, stamp="1", now_s=0.0)
    acquire.acquiring(False, stamp="2", now_s=1.0)
    assert acquire.acquiring(True, stamp="3", now_s=1.1) == [Ended("1", aborted=False), Began("3")]
    assert acquire.frame({}, now_s=1.2) == ([], "3")


def test_a_pv_that_is_told_again_begins_nothing(acquire):
    acquire.acquiring(True, stamp="1", now_s=0.0)
    assert acquire.acquiring(True, stamp="2", now_s=1.0) == []
    assert acquire.frame({}, now_s=1.2) == ([], "1")


def test_a_series_goes_on_when_its_pv_comes_back_as_it_was(acquire):
    acquire.acquiring(True, stamp="1", now_s=0.0)
    acquire.lost()
    assert acquire.acquiring(True, stamp="1", now_s=9.0) == []
    acquire.lost()
    assert acquire.acquiring(True, stamp="8", now_s=10.0) == [Ended("1", aborted=True), Began("8")]


def test_an_attribute_names_the_series():
    rule = series_rule(SeriesByAttribute(attribute="ScanId"))
    assert rule.frame({"ScanId": 4}, now_s=0.0) == ([Began("4")], "4")
    assert rule.frame({"ScanId": 4}, now_s=500.0) == ([], "4")
    assert rule.frame({}, now_s=501.0) == ([], None), "it says no series"
    assert rule.frame({"ScanId": 4}, now_s=502.0) == ([], "4")
    assert rule.frame({"ScanId": "5"}, now_s=503.0) == ([Ended("4", aborted=False), Began("5")], "5")
    assert rule.pause(now_s=9999.0) == []


def test_a_pause_ends_a_series_and_the_next_frame_begins_another():
    rule = series_rule(SeriesByPause(pause_s=2.0))
    (began,), first = rule.frame({}, now_s=0.0)
    assert began == Began(first)
    assert rule.frame({}, now_s=1.9) == ([], first)
    assert rule.pause(now_s=3.8) == []
    assert rule.pause(now_s=3.9) == [Ended(first, aborted=False)]
    (began,), second = rule.frame({}, now_s=4.0)
    assert began == Began(second)
    assert second != first
    assert rule.frame({}, now_s=7.0)[0][0] == Ended(second, aborted=False), "although nobody looked in between"
