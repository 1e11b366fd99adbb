"""The queue of requests: its end, its bound, and who has left."""

from __future__ import annotations

import threading

import pytest

from mlxops.serving.requests import Defaults, Request, read
from mlxops.serving.shapes import ApiError
from mlxops.serving.tickets import Tickets

DEFAULTS = Defaults(max_tokens=5, temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=1)


def request() -> Request:
    return read(b'{"prompt": "x"}', "text", DEFAULTS)


def test_one_too_many_is_told_when_to_try_again() -> None:
    tickets = Tickets(2)
    tickets.seconds_each = 7.4
    tickets.add(request())
    tickets.add(request())

    with pytest.raises(ApiError, match="2 requests are waiting already") as raised:
        tickets.add(request())
    assert (raised.value.status, raised.value.retry_after) == (429, 7)


def test_who_has_left_keeps_no_place_and_gets_no_answer() -> None:
    tickets = Tickets(1)
    tickets.add(request()).cancel()

    second = tickets.add(request())

    assert tickets.next() is second


def test_a_queue_that_closes_tells_everyone_and_ends_the_waiting() -> None:
    tickets = Tickets(3)
    at_work, waiting = tickets.add(request()), tickets.add(request())
    assert tickets.next() is at_work
    ended: list[object] = []
    worker = threading.Thread(target=lambda: ended.append(tickets.next()))

    tickets.close()
    worker.start()
    worker.join()

    told = [each.get(0) for each in (at_work, waiting)]
    assert [isinstance(each, ApiError) and each.status for each in told] == [503, 503]
    assert (ended, at_work.is_cancelled) == ([None], True)
    with pytest.raises(ApiError, match="stopping"):
        tickets.add(request())
