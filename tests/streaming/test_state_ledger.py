import msgspec
from speaking import Said, of_rank, telemetry

from ptychoflow.streaming.events import AcquisitionCounts, EdgeCounts, RankCounts
from ptychoflow.streaming.state.ledger import FrameCounts, FrameLedger


def acquisition(acquired: int) -> AcquisitionCounts:
    return AcquisitionCounts(
        acquired=acquired, published=acquired, samples=70, void=9, held_out=11, excluded=5, unlabelled=3, rejected=1,
        resent_batches=0, spooled_bytes=0,
    )  # fmt: skip


def rank(index: int, trained: int, validation: int, rejected: int = 0) -> Said:
    return of_rank(index, RankCounts(trained=trained, validation=validation, duplicates=4, rejected=rejected))


def test_counts_of_ranks_add_up_and_the_balance_closes():
    ledger = FrameLedger()
    for event in (acquisition(100), rank(0, 30, 4), rank(1, 31, 4, rejected=2), EdgeCounts(100, 40, 7, 50.0, 3.0, 9.0)):
        ledger.apply(telemetry(event))
    counts = ledger.counts()
    assert counts == FrameCounts(
        acquired=100, published=100, trained=61, validation=8, void=9, held_out=11, excluded=5, unlabelled=3,
        rejected=3, inferred=100, refreshed=40,
    )  # fmt: skip
    assert (counts.accounted, counts.lost) == (100, 0)


def test_a_frame_that_never_reached_a_rank_is_lost():
    ledger = FrameLedger()
    for event in (acquisition(100), rank(0, 30, 4), rank(1, 31, 3, rejected=2)):
        ledger.apply(telemetry(event))
    assert ledger.counts().lost == 1


def test_a_frame_counted_by_two_ranks_shows_as_negative():
    ledger = FrameLedger()
    for event in (acquisition(100), rank(0, 31, 4), rank(1, 31, 4, rejected=2)):
        ledger.apply(telemetry(event))
    assert ledger.counts().lost == -1


def test_repeated_and_newer_reports_replace_older_ones():
    ledger = FrameLedger()
    for event in (rank(0, 10, 1), rank(0, 20, 2), rank(0, 20, 2)):
        ledger.apply(telemetry(event))
    assert (ledger.counts().trained, ledger.counts().validation) == (20, 2)


def test_an_empty_ledger_is_all_zero():
    assert FrameLedger().counts() == FrameCounts()


def test_after_a_resume_on_fewer_ranks_their_counts_hold_those_of_the_others():
    ledger = FrameLedger()
    for event in (acquisition(100), rank(0, 30, 4), rank(1, 31, 4, rejected=2)):
        ledger.apply(telemetry(event))
    ledger.apply(telemetry(of_rank(0, RankCounts(trained=55, validation=8, duplicates=0, rejected=2, ranks=1))))
    assert (ledger.counts().trained, ledger.counts().validation, ledger.counts().lost) == (55, 8, 6)


def test_whose_last_counts_have_not_come_is_known_until_they_come():
    ledger = FrameLedger()
    for event in (acquisition(100), EdgeCounts(99, 0, 0, 1.0, 1.0, 1.0, final=True)):
        ledger.apply(telemetry(event))
    for index, final in ((0, True), (1, False)):
        ledger.apply(telemetry(of_rank(index, RankCounts(30, 4, 0, 0, ranks=2, final=final))))
    assert ledger.unheard == ["the acquisition", "rank 1 of the trainer"]
    ledger.apply(telemetry(of_rank(0, RankCounts(60, 8, 0, 0, ranks=1, final=True))))
    ledger.apply(telemetry(msgspec.structs.replace(acquisition(100), final=True)))
    assert ledger.unheard == []
    ledger.apply(telemetry(EdgeCounts(50, 0, 0, 1.0, 1.0, 1.0)))
    assert ledger.unheard == ["the edge"], "it was started again"
