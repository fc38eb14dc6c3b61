"""One stream among several: ranks that come, go and are not believed, and edges that take each other's frames."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streams import (
    MakePublisher,
    collect,
    edge_inbox,
    numbers,
    post_batches,
    post_samples,
    rank_inbox,
    settle,
)
from support import wait_until

from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import PerspectiveEnd
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.publisher import RETRY_S, Publisher
from ptychoflow.streaming.settings import NetworkSettings


@contextlib.contextmanager
def with_a_port_taken(
    network: NetworkSettings, spool_dir: Path, told: list[str]
) -> Iterator[tuple[Publisher, socket.socket]]:
    """Give a publisher of four samples, and the stranger's socket that has rank 1's port."""
    with (
        socket.create_server(("127.0.0.1", network.samples_port + 1)) as taken,
        Publisher(network, spool_dir=spool_dir, memory_bytes=1 << 30, edge=False, warn=told.append) as publisher,
    ):
        post_samples(publisher, 4)
        yield publisher, taken


def test_samples_posted_before_any_rank_is_there_are_dealt_out_in_turn(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(edge=False)
    post_samples(publisher, 10)
    publisher.post_to_ranks(PerspectiveEnd(0, 0.0, 20))
    with rank_inbox(network, 0, 2) as zero, rank_inbox(network, 1, 2) as one:
        got = [collect(publisher, inbox, 6) for inbox in (zero, one)]
        settle(publisher)
    assert numbers(got[0][:5]) == [0, 2, 4, 6, 8]
    assert numbers(got[1][:5]) == [1, 3, 5, 7, 9]
    assert [deliveries[5].message for deliveries in got] == [PerspectiveEnd(0, 0.0, 20)] * 2


def test_what_two_ranks_had_not_finished_is_dealt_to_the_one_that_comes_after_them(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(edge=False)
    post_samples(publisher, 10)
    publisher.post_to_ranks(PerspectiveEnd(0, 0.0, 20))
    post_samples(publisher, 2, start=10)
    with rank_inbox(network, 0, 2) as zero, rank_inbox(network, 1, 2) as one:
        first = collect(publisher, zero, 7, acknowledge=False)
        collect(publisher, one, 7, acknowledge=False)
        zero.acknowledge([first[1].sequence])  # batch 2

        def acknowledged() -> bool:
            publisher.pump(0.01)
            return publisher.unacknowledged == 12

        wait_until(acknowledged)
    with rank_inbox(network, 0, 1) as alone:
        got = collect(publisher, alone, 12)
        settle(publisher)
    assert isinstance(got[9].message, PerspectiveEnd)
    assert numbers(got[:9] + got[10:]) == [0, 1, *range(3, 12)]


@pytest.mark.parametrize("private", [False, True])
def test_ranks_may_become_fewer_and_more_again(network: NetworkSettings, tmp_path: Path, private: bool) -> None:
    with contextlib.ExitStack() as stack:
        if private:
            network = NetworkSettings(sockets_dir=stack.enter_context(private_folder()))
        publisher = stack.enter_context(Publisher(network, spool_dir=tmp_path, memory_bytes=1 << 30, edge=False))
        for ranks in (2, 1, 2):
            post_samples(publisher, ranks)
            with contextlib.ExitStack() as inboxes:
                some = [inboxes.enter_context(rank_inbox(network, rank, ranks)) for rank in range(ranks)]
                got = [numbers(collect(publisher, inbox, 1)) for inbox in some]
                settle(publisher)
            assert got == [[rank] for rank in range(ranks)]


def test_more_ranks_than_there_are_free_ports_for_change_nothing(
    network: NetworkSettings, publisher_of: MakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = publisher_of(edge=False)
    post_samples(publisher, 4)
    with rank_inbox(network, 0, 1) as alone:
        first = collect(publisher, alone, 1, acknowledge=False)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", network.samples_port + 2))
            taken.listen()
            with rank_inbox(network, 1, 3):
                wait_until(lambda: (publisher.pump(0.01), "has 3 ranks, as rank-1 says, which wait" in caplog.text)[1])
        assert publisher.world_size == 1
        rest = collect(publisher, alone, 3)
        alone.acknowledge([first[0].sequence])
        settle(publisher)
        over_s = time.monotonic() + 2.0 * RETRY_S
        wait_until(lambda: (publisher.pump(0.01), time.monotonic() > over_s)[1])
        assert publisher.world_size == 1, "the stranger is not tried again"
    assert numbers(first + rest) == [0, 1, 2, 3]


def test_ranks_whose_ports_are_taken_for_a_while_are_sent_their_samples_once_they_are_free(
    network: NetworkSettings, tmp_path: Path
) -> None:
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        publisher, taken = stack.enter_context(with_a_port_taken(network, tmp_path, told))
        inboxes = [stack.enter_context(rank_inbox(network, rank, 2)) for rank in range(2)]
        wait_until(lambda: (publisher.pump(0.01), bool(told))[1])
        taken.close()
        assert [numbers(collect(publisher, inbox, 2)) for inbox in inboxes] == [[0, 2], [1, 3]]
        settle(publisher)
    (told_once,) = told
    assert "which wait: cannot listen on 127.0.0.1:" in told_once


def test_a_rank_that_was_refused_is_not_forgotten_because_another_one_of_its_trainer_is_there(
    network: NetworkSettings, tmp_path: Path
) -> None:
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        publisher, taken = stack.enter_context(with_a_port_taken(network, tmp_path, told))
        refused = stack.enter_context(rank_inbox(network, 1, 2))
        wait_until(lambda: (publisher.pump(0.01), bool(told))[1])
        taken.close()
        with rank_inbox(network, 0, 2) as first:
            assert numbers(collect(publisher, first, 2)) == [0, 2]
            assert numbers(collect(publisher, refused, 2)) == [1, 3]
            settle(publisher)


def test_two_edges_on_one_stream_are_told_and_keep_bounded_memory(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher, warnings = publisher_of(trainer=False), []
    with edge_inbox(network) as older:
        wait_until(lambda: (publisher.pump(0.01), older.receive(0.0), publisher.everybody_is_there)[2])
        with Inbox(network, consumer="edge", port=network.frames_port, warn=warnings.append) as newer:
            most, posted = 0, 0

            def told() -> bool:
                nonlocal most, posted
                if publisher.unacknowledged < 4000:
                    post_batches(publisher, 20, start=posted % 1000, side=2)
                    posted += 20
                publisher.pump(0.0)
                for inbox in (older, newer):
                    for _ in range(20):
                        if (delivery := inbox.receive(0.0)) is not None:
                            inbox.acknowledge([delivery.sequence])
                most = max(most, len(newer._early))
                return bool(warnings)

            wait_until(told)
            assert most <= newer._early_most + 1
    (told_once,) = warnings
    assert "another edge seems to take the others; stop one of them" in told_once
