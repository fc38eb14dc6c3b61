"""What waits for an output: the newest of everything, within bounds."""

from __future__ import annotations

import threading

import pytest
from output_news import FIRST_PASS, REFRESHED, image, news
from telemetry_samples import scores

from ptychoflow.dashboard.outputs.mailbox import Mailbox


def test_what_is_newer_takes_the_place_of_what_waits_and_the_order_stays() -> None:
    mailbox = Mailbox()
    for value in range(5):
        mailbox.put(news(image(value=value)))
        mailbox.put(news(scores(0, FIRST_PASS, 20.0 + value)))
    mailbox.put(news(image(kind=REFRESHED)))
    assert (len(mailbox), mailbox.overtaken, mailbox.dropped) == (3, 8, 0)
    first, second, third = (mailbox.take() for _ in range(3))
    assert first is not None and second is not None and third is not None
    assert first.what.channels["phase"][0, 1] == pytest.approx(4.01)
    assert second.what.quality.psnr_db.phase == 24.0
    assert third.what.info.kind is REFRESHED


def test_a_full_mailbox_lets_the_oldest_go_and_counts_it() -> None:
    mailbox = Mailbox(max_news=3)
    for perspective in range(10):
        mailbox.put(news(image(perspective)))
    assert (len(mailbox), mailbox.dropped) == (3, 7)
    taken = mailbox.take()
    assert taken is not None and taken.what.info.perspective == 7


def test_memory_is_bounded_but_a_single_large_image_fits() -> None:
    large = image(shape=(100, 100))
    mailbox = Mailbox(max_bytes=large.nbytes - 1)
    mailbox.put(news(large))
    assert (len(mailbox), mailbox.dropped) == (1, 0)
    mailbox.put(news(image(1, shape=(100, 100))))
    assert (len(mailbox), mailbox.dropped) == (1, 1)


def test_what_was_put_back_comes_first_unless_something_newer_waits() -> None:
    mailbox = Mailbox()
    old = news(image(0))
    mailbox.put(news(image(1)))
    mailbox.put_back(old)
    assert mailbox.take() is old
    mailbox.put(news(image(0, value=1.0)))
    mailbox.put_back(old)
    assert (len(mailbox), mailbox.overtaken) == (2, 1)
    while len(mailbox):
        assert mailbox.take() is not old


def test_closing_lets_what_waits_be_taken_and_then_wakes_who_waits() -> None:
    mailbox = Mailbox()
    mailbox.put(news(image()))
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.extend([mailbox.take(), mailbox.take()]))
    waiting.start()
    mailbox.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert taken[0] is not None and taken[1] is None
