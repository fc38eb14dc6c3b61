"""Publisher to inbox over real sockets: order, acknowledgement, broken connections, dead receivers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zmq
from streams import (
    MakePublisher,
    PlayedPublisher,
    collect,
    edge_inbox,
    numbers,
    post_batches,
    post_samples,
    rank_inbox,
    settle,
)
from support import Proxy, wait_until

from ptychoflow.streaming import inbox as inbox_module
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import (
    ControlMessage,
    FirstPassScore,
    Frames,
    Hello,
    ScanEnd,
)
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings


def test_batches_arrive_in_order_and_are_forgotten_when_acknowledged(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(trainer=False)
    post_batches(publisher, 200)
    with edge_inbox(network) as inbox:
        assert numbers(collect(publisher, inbox, 200)) == list(range(200))
        settle(publisher)
        assert (inbox.duplicates, publisher.resent) == (0, 0)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00", b"\xff" + bytes(8) + b"\x7f\x01\x00" + bytes(2)]
)
def test_who_connects_and_does_not_speak_as_we_do_is_dealt_no_batch(
    network: NetworkSettings, tmp_path: Path, greeting: bytes, private: bool
) -> None:
    if private:
        network = network.model_copy(update={"sockets_dir": tmp_path / "sockets"})
    with (
        Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=1 << 30, trainer=False) as publisher,
        socket.socket(socket.AF_UNIX if private else socket.AF_INET) as stranger,
    ):
        endpoint = network.endpoint(network.acquisition_host, network.frames_port).partition("://")[2]
        stranger.connect(endpoint if private else (network.acquisition_host, network.frames_port))
        stranger.sendall(greeting)
        stranger.settimeout(10.0)
        with contextlib.suppress(ConnectionError):
            stranger.recv(100)  # it is greeted, or turned away at once
        post_batches(publisher, 10)
        with edge_inbox(network) as inbox:
            assert numbers(collect(publisher, inbox, 10)) == list(range(10))


def test_a_connection_cut_in_the_middle_loses_and_repeats_nothing(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(trainer=False)
    proxy = Proxy(network.frames_port, limit_bytes=2_000_000)
    post_batches(publisher, 300, side=64)
    with edge_inbox(network, proxy.port) as inbox:
        assert numbers(collect(publisher, inbox, 300)) == list(range(300))
        settle(publisher)
        assert proxy.connections >= 2
        assert publisher.resent > 0
    proxy.close()


def test_a_score_told_while_the_connection_is_broken_arrives_once_it_is_back(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(trainer=False)
    proxy = Proxy(network.acknowledgements_port)
    scores = [FirstPassScore(perspective, 20.0 + perspective, 0.5, 18.0) for perspective in range(3)]
    with edge_inbox(network.model_copy(update={"acknowledgements_port": proxy.port})) as inbox:

        def told(*expected: FirstPassScore) -> bool:
            publisher.pump(0.01)
            inbox.receive(0.0)
            return list(dict.fromkeys(publisher.scores)) == list(expected)

        inbox.report_score(scores[0])
        wait_until(lambda: told(scores[0]))
        proxy.cut()
        for score in scores[1:]:
            inbox.report_score(score)
        wait_until(lambda: told(*scores))
    proxy.close()


def test_a_consumer_that_has_finished_stays_until_its_last_acknowledgement_has_come(
    network: NetworkSettings, publisher_of: MakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "AWAY_S", 60.0)  # it is the proxy that is away, for as long as its threads need
    publisher = publisher_of(trainer=False)
    proxy = Proxy(network.acknowledgements_port)
    post_batches(publisher, 3)
    publisher.post_to_edge(ScanEnd(3))
    with edge_inbox(network.model_copy(update={"acknowledgements_port": proxy.port})) as inbox:
        collect(publisher, inbox, 4, acknowledge=False)
        proxy.swallows = True
        inbox.acknowledge(range(4))
        leaving = threading.Thread(target=inbox.wait_until_complete, args=(threading.Event(),))
        leaving.start()
        for _ in range(30):
            publisher.pump(0.01)
        assert leaving.is_alive()
        assert publisher.unacknowledged == 4
        proxy.swallows = False
        proxy.cut()
        settle(publisher)
        leaving.join(20)
        assert not leaving.is_alive()
    proxy.close()


@pytest.mark.parametrize("asked", [True, False])
def test_a_consumer_that_has_finished_leaves_when_it_is_asked_to_or_its_publisher_has_left(
    network: NetworkSettings, asked: bool
) -> None:
    with Publisher(network, spool_dir=Path("none"), memory_bytes=1 << 20, trainer=False) as publisher:
        post_batches(publisher, 1)
        with edge_inbox(network) as inbox:
            collect(publisher, inbox, 1)
            stop = threading.Event()
            leaving = threading.Thread(target=inbox.wait_until_complete, args=(stop,))
            leaving.start()
            stop.set() if asked else publisher.close()
            leaving.join(20)
            assert not leaving.is_alive()


def test_a_consumer_that_nobody_confirms_leaves_with_words(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher, said = publisher_of(trainer=False), []
    post_batches(publisher, 1)
    with Inbox(network, consumer="edge", port=network.frames_port, warn=said.append) as inbox:
        collect(publisher, inbox, 1, acknowledge=False)
        inbox.wait_until_complete(threading.Event(), patience_s=0.3)
    assert "not confirmed" in said[0]


@pytest.mark.timeout(60)
def test_a_consumer_whose_publisher_is_away_never_blocks_and_tells_all_when_it_is_there(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    with edge_inbox(network) as inbox:
        for sequence in range(5 * network.high_water_mark):
            inbox.acknowledge([sequence])
        inbox.report_score(FirstPassScore(7, 20.0, 0.5, 10.0))
        publisher = publisher_of(trainer=False)

        def told() -> bool:
            publisher.pump(0.01)
            assert inbox.receive(0.0) is None
            return FirstPassScore(7, 20.0, 0.5, 10.0) in publisher.scores

        wait_until(told)
        post_batches(publisher, 3)
        assert numbers(collect(publisher, inbox, 3)) == [0, 1, 2]
        settle(publisher)


def test_what_a_dead_receiver_had_not_acknowledged_goes_to_its_successor(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(trainer=False)
    post_batches(publisher, 100)
    with edge_inbox(network) as inbox:
        first = collect(publisher, inbox, 60, acknowledge=False)
        inbox.acknowledge([first[index].sequence for index in (0, 1, 5)])

        def acknowledged() -> bool:
            publisher.pump(0.01)
            return publisher.unacknowledged == 97

        wait_until(acknowledged)
    with edge_inbox(network) as successor:
        rest = numbers(collect(publisher, successor, 97))
        settle(publisher)
    assert rest == [2, 3, 4, *range(6, 100)]


def test_what_a_receiver_has_held_goes_to_its_successor_in_order_but_to_nobody_before(
    network: NetworkSettings, publisher_of: MakePublisher, tmp_path: Path
) -> None:
    publisher = publisher_of(memory_bytes=5000, trainer=False)
    post_batches(publisher, 10)
    proxy = Proxy(network.frames_port)
    with edge_inbox(network, proxy.port) as inbox:
        got = collect(publisher, inbox, 10, acknowledge=False)
        inbox.hold([delivery.sequence for delivery in got[:6]])
        inbox.acknowledge([delivery.sequence for delivery in [got[1], *got[6:9]]])

        def held() -> bool:
            publisher.pump(0.01)
            return publisher.unacknowledged == 1

        wait_until(held)
        proxy.cut()
        wait_until(lambda: (publisher.pump(0.0), inbox.receive(0.01), publisher.resent)[2] == 1)
    proxy.close()
    with edge_inbox(network) as successor:
        assert numbers(collect(publisher, successor, 6)) == [0, 2, 3, 4, 5, 9]
        settle(publisher)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_slow_receiver_makes_the_sender_spool_to_disk(
    network: NetworkSettings, publisher_of: MakePublisher, tmp_path: Path
) -> None:
    publisher = publisher_of(memory_bytes=100_000, trainer=False)
    post_batches(publisher, 200)
    assert publisher.spool.written_bytes > 200 * 4 * 16 * 16 * 2 - 100_000
    assert len(list((tmp_path / "spool").iterdir())) > 100
    with edge_inbox(network) as inbox:
        assert numbers(collect(publisher, inbox, 200)) == list(range(200))
        settle(publisher)
    assert list((tmp_path / "spool").iterdir()) == []
    assert not publisher.spool.full


def test_a_publisher_that_is_stopped_leaves_no_spool(publisher_of: MakePublisher, tmp_path: Path) -> None:
    publisher = publisher_of(memory_bytes=10_000, trainer=False)
    post_batches(publisher, 20)
    assert list((tmp_path / "spool").iterdir())
    publisher.close()
    assert not list((tmp_path / "spool").iterdir())


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def change_a_pixel(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x5a")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, change_a_pixel, empty, Path.unlink])
def test_a_batch_that_the_disk_does_not_give_back_is_left_out_and_told_and_those_behind_it_arrive(
    network: NetworkSettings, publisher_of: MakePublisher, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    publisher = publisher_of(memory_bytes=0, trainer=False)
    post_batches(publisher, 6)
    files = sorted((tmp_path / "spool").iterdir())
    for number in (0, 3):
        damage(files[number])
    told: list[str] = []
    with Inbox(network, consumer="edge", port=network.frames_port, warn=told.append) as inbox:
        assert numbers(collect(publisher, inbox, 4)) == [1, 2, 4, 5]
        settle(publisher)
        assert (inbox.oversized, inbox.malformed) == (0, 0)
    assert [text.partition(":")[0] for text in told] == [
        "edge left out message 0 of the acquisition, 1 in all",
        "edge left out message 3 of the acquisition, 2 in all",
    ]


def test_a_full_disk_keeps_batches_in_memory_and_says_so(
    network: NetworkSettings, publisher_of: MakePublisher, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    publisher = publisher_of(memory_bytes=10_000, trainer=False)
    post_batches(publisher, 50)
    assert publisher.spool.full
    assert publisher.spool.disk_error is not None
    with edge_inbox(network) as inbox:
        assert numbers(collect(publisher, inbox, 50)) == list(range(50))
        settle(publisher)
    assert not publisher.spool.full


def test_a_disk_that_has_room_again_lets_the_acquisition_go_on(
    network: NetworkSettings, publisher_of: MakePublisher, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    publisher = publisher_of(memory_bytes=5000, trainer=False)
    post_batches(publisher, 10)
    assert publisher.spool.full
    (tmp_path / "spool").unlink()
    wait_until(lambda: (publisher.pump(0.01), not publisher.spool.full)[1])
    assert publisher.spool.disk_error is None
    with edge_inbox(network) as inbox:
        assert numbers(collect(publisher, inbox, 10)) == list(range(10))
        settle(publisher)
    assert not list((tmp_path / "spool").iterdir())


def test_what_is_left_of_a_killed_publisher_is_not_taken_for_what_the_next_one_sends(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    killed = publisher_of(trainer=False)
    post_batches(killed, 50)
    with edge_inbox(network) as inbox:
        collect(killed, inbox, 2)
        killed.close(linger_s=5.0)  # what it has sent waits in the inbox's socket
        publisher = publisher_of(trainer=False)
        post_batches(publisher, 50, start=100)
        inbox.report_score(FirstPassScore(0, 20.0, 0.5, 18.0))
        wait_until(lambda: (publisher.pump(0.01), len(publisher.scores))[1] > 0)  # the inbox is connected again
        got: list[int] = []

        def all_came() -> bool:
            got.extend(numbers(collect(publisher, inbox, 1)))
            return got[-1] == 149

        wait_until(all_came)
        settle(publisher)
        assert [number for number in got if number >= 100] == list(range(100, 150))


def test_a_rank_whose_publisher_died_before_it_took_the_hello_announces_itself_to_the_next_one(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    context = zmq.Context()
    died = context.socket(zmq.PULL)
    died.bind(f"tcp://127.0.0.1:{network.acknowledgements_port}")
    with rank_inbox(network, 0, 1) as inbox:
        wait_until(lambda: bool(died.poll(10)))  # of the two connections one stands: no port for samples is open yet
        context.destroy(linger=0)
        publisher = publisher_of(edge=False)
        post_samples(publisher, 3)
        assert numbers(collect(publisher, inbox, 3)) == [0, 1, 2]
        settle(publisher)


@pytest.mark.parametrize("sides", [(100,), (44, 44)], ids=["refused by the socket", "refused by the codec"])
def test_a_message_too_large_is_left_out_and_told_and_those_behind_it_arrive(
    network: NetworkSettings, publisher_of: MakePublisher, sides: tuple[int, ...]
) -> None:
    publisher, told = publisher_of(trainer=False), []
    post_batches(publisher, 3)
    large = {f"array {number}": np.ones((side, side), np.uint32) for number, side in enumerate(sides)}
    for number in (3, 4):
        publisher.post_to_edge(Frames(0, 0.0, 0.0), large)
        post_batches(publisher, 1, start=number)
    limited = network.model_copy(update={"max_message_bytes": 10_000})
    with Inbox(limited, consumer="edge", port=network.frames_port, warn=told.append) as inbox:
        assert numbers(collect(publisher, inbox, 5)) == list(range(5))
        settle(publisher)
        assert (inbox.oversized, inbox.malformed) == (2, 0)
    assert [text.split(",")[0] for text in told] == [f"edge left out message {n} of the acquisition" for n in (3, 5)]
    assert "network.max_message_bytes = 10000" in told[0]


def test_messages_too_large_do_not_make_an_inbox_take_answers_to_hellos_of_long_ago(network: NetworkSettings) -> None:
    limited = network.model_copy(update={"max_message_bytes": 10_000})
    with (
        contextlib.closing(PlayedPublisher(network)) as publisher,
        Inbox(limited, consumer="edge", port=network.frames_port) as inbox,
    ):
        for call in range(4):
            wait_until(partial(publisher.is_greeted, inbox, call + 1))
            # each is sent twice, before it is taken for what was refused
            publisher.send(call // 2, answers=call, side=100)
        wait_until(partial(publisher.is_greeted, inbox, 5))
        assert inbox.oversized == 2
        publisher.send(2, answers=2, side=2)
        publisher.send(2, answers=0)
        publisher.send(2, answers=3)
        publisher.send(3, answers=4)
        wait_until(lambda: publisher.is_greeted(inbox, 5) and len(publisher.got) == 2)
        assert publisher.got == [2, 3]
        assert inbox.duplicates == 0  # the first two answer hellos of long ago


def test_malformed_messages_are_counted_and_dropped_on_both_sides(
    network: NetworkSettings, publisher_of: MakePublisher
) -> None:
    publisher = publisher_of(trainer=False)
    context = zmq.Context()
    stranger = context.socket(zmq.PUSH)
    stranger.connect(f"tcp://127.0.0.1:{network.acknowledgements_port}")
    stranger.send_multipart([b"\x80\x04pickle", b"?"])
    for world_size in (-1, 1 << 40):
        stranger.send_multipart(Codec(ControlMessage).encode(Hello("rank-0", "s", world_size, 0, 0)))

    def counted() -> bool:
        publisher.pump(0.01)
        return publisher.malformed == 3

    wait_until(counted)
    post_batches(publisher, 3)
    with edge_inbox(network) as inbox:
        assert numbers(collect(publisher, inbox, 3)) == [0, 1, 2]
    context.destroy(linger=0)
