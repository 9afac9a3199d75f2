"""The queue of one model version: order, bounds, deadlines."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import QueueFull
from headway_broker.queues import BATCH_BYTES_MAX, OpenRequest, Queue
from tests.broker.bench import open_request, spec


def queue_of(*requests: OpenRequest, **keys: Any) -> Queue:
    queue = Queue(spec(**keys))
    for request in requests:
        queue.add(request)
    return queue


def ids(requests: list[OpenRequest]) -> list[int]:
    return [request.id for request in requests]


def test_requests_are_taken_in_the_order_in_which_they_came() -> None:
    queue = queue_of(*(open_request(i) for i in (1, 2, 3)))
    assert ids(queue.take(2)) == [1, 2]
    assert ids(queue.take(2)) == [3]
    assert ids(queue.take(2)) == []


def test_rows_and_not_requests_are_counted() -> None:
    queue = queue_of(open_request(1, rows=3), open_request(2, rows=2), open_request(3))
    assert queue.rows == 6
    assert ids(queue.take(4)) == [1]
    assert queue.rows == 3


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    queue = queue_of(open_request(1, rows=3), open_request(2, rows=4), open_request(3, rows=1))
    assert ids(queue.take(4)) == [1]
    assert ids(queue.take(4)) == [2]


def test_a_batch_is_limited_by_bytes_too() -> None:
    half = bytes(BATCH_BYTES_MAX // 2)
    queue = queue_of(*(open_request(i, tensors=half) for i in (1, 2, 3)))
    assert ids(queue.take(8)) == [1, 2]
    assert ids(queue.take(8)) == [3]


def test_a_single_request_larger_than_the_limit_on_bytes_goes_alone() -> None:
    large = bytes(BATCH_BYTES_MAX + 1)
    queue = queue_of(open_request(1, tensors=large), open_request(2))
    assert ids(queue.take(8)) == [1]


def test_a_queue_is_bounded_by_count() -> None:
    queue = queue_of(open_request(1), open_request(2), queue_size_max=2)
    with pytest.raises(QueueFull, match="its 2 requests"):
        queue.add(open_request(3))
    assert len(queue) == 2


def test_what_is_taken_at_once_does_not_count() -> None:
    queue = queue_of(open_request(1), open_request(2), queue_size_max=2)
    queue.add(open_request(3), taken=1)
    with pytest.raises(QueueFull, match="its 2 requests"):
        queue.add(open_request(4), taken=1)


def test_a_model_without_a_queue_says_so() -> None:
    with pytest.raises(QueueFull, match="no copy of 'm' is idle, and it keeps no queue"):
        Queue(spec(queue_size_max=0)).add(open_request(1))


def test_a_queue_is_bounded_by_bytes() -> None:
    queue = queue_of(open_request(1, tensors=b"12345"), queue_bytes_max=8)
    with pytest.raises(QueueFull, match="its 8 bytes"):
        queue.add(open_request(2, tensors=b"1234"))
    queue.add(open_request(3, tensors=b"123"))
    assert queue.bytes == 8


def test_an_empty_queue_takes_one_request_of_any_size() -> None:
    assert len(queue_of(open_request(1, tensors=b"12345"), queue_bytes_max=2)) == 1


def test_a_returned_request_goes_first_and_alone_and_no_bound_keeps_it_out() -> None:
    queue = queue_of(open_request(1, arrived=5.0), queue_size_max=1)
    queue.put_back(open_request(2, arrived=3.0))
    assert [request.id for request in queue] == [2, 1]
    assert (queue.head, queue.oldest) == (3.0, 5.0)
    assert (queue.rows, queue.rows_together) == (2, 1)
    assert ids(queue.take(8)) == [1], "take does not touch what must go alone"
    returned = queue.take_returned()
    assert returned and returned.id == 2
    assert queue.take_returned() is None


def test_an_empty_queue_has_waited_for_nothing() -> None:
    queue = queue_of()
    assert (queue.head, queue.oldest, queue.earliest) == (math.inf, math.inf, math.inf)


def test_a_request_is_removed_wherever_it_waits() -> None:
    waiting, returned, stranger = open_request(1), open_request(2), open_request(3)
    queue = queue_of(waiting)
    queue.put_back(returned)
    for request in (stranger, waiting, returned, returned):
        queue.remove(request)
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)


def test_what_is_past_its_deadline_is_taken_out_and_the_next_deadline_is_known() -> None:
    queue = queue_of(open_request(1, timeout_s=3.0), open_request(2, timeout_s=9.0))
    queue.put_back(open_request(3, timeout_s=2.0))
    assert queue.earliest == 2.0
    assert queue.expire(1.9) == []
    assert ids(queue.expire(3.0)) == [3, 1]
    assert queue.earliest == 9.0
    assert queue.rows == 1


def test_a_queue_that_ran_empty_forgets_the_deadlines_of_what_left_it() -> None:
    queue = queue_of(open_request(1, timeout_s=1.0))
    queue.take(8)
    queue.add(open_request(2, timeout_s=9.0))
    assert queue.earliest == 9.0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5), st.integers(0, 40)),
        st.tuples(st.just("back"), st.integers(1, 5), st.integers(0, 40)),
        st.tuples(st.just("take"), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("lone"), st.just(0), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("expire"), st.integers(0, 40), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_whatever_is_done_its_sums_are_those_of_what_waits(steps: list[tuple[str, int, int]]) -> None:
    queue, left, came = Queue(spec(queue_size_max=10)), 0, 0
    for step, number, timeout in steps:
        if step in ("add", "back"):
            request = open_request(came, timeout_s=float(timeout), rows=number)
            try:
                (queue.add if step == "add" else queue.put_back)(request)
                came += 1
            except QueueFull:
                assert len(queue) >= 10
        elif step == "take":
            taken = queue.take(number)
            assert len(taken) <= 1 or sum(r.rows for r in taken) <= number
            left += len(taken)
        elif step == "lone":
            left += queue.take_returned() is not None
        elif step == "drop":
            doomed = list(queue)[number : number + 1]
            for request in doomed:
                queue.remove(request)
            left += len(doomed)
        else:
            late = queue.expire(float(number))
            assert all(r.deadline <= number for r in late) and all(r.deadline > number for r in queue)
            left += len(late)
        waiting = list(queue)
        assert len(queue) == len(waiting) == came - left
        assert queue.rows == sum(r.rows for r in waiting)
        assert queue.bytes == sum(len(r.tensors) for r in waiting)
        assert all(queue.earliest <= r.deadline for r in waiting)
