"""The queue of a model with sequences: order within each, who has which, what is lost with whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import HeadwayError, InvalidInput, NoSequence, QueueFull
from headway.steps import Step
from headway_broker.queues import BATCH_BYTES_MAX, OpenRequest, Queue
from headway_broker.sequence_queue import SequenceQueue, queue_for, queue_instead
from tests.broker.bench import open_request, spec

W, V = b"w", b"v"
KEYS = {"sequences_max": 8, "sequence_queue_max": 9, "sequence_opens": "any", "sequence_idle_ms": 1000.0}


def request(id: int, name: str = "", starts: bool = False, ends: bool = False, **keys: Any) -> OpenRequest:
    made = open_request(id, **keys)
    made.options = Step(name, starts, ends).options if name else {}
    return made


def queue_of(*requests: OpenRequest, **keys: Any) -> SequenceQueue:
    queue = SequenceQueue(spec(**{**KEYS, **keys}))
    for each in requests:
        queue.add(each)
    queue.check()
    return queue


def ids(requests: list[OpenRequest]) -> list[int]:
    return [each.id for each in requests]


def both(queue: SequenceQueue) -> None:
    queue.bind({W: False, V: False})


def told(queue: SequenceQueue) -> dict[int, str]:
    found = {each.id: str(error) for each, error in queue.take_over()}
    queue.check()
    return found


def test_a_batch_has_one_request_of_each_sequence_and_the_next_when_that_is_answered() -> None:
    queue = queue_of(request(1, "a"), request(2, "a"), request(3, "b"), request(4, "b"))
    queue.bind({W: False})
    first = queue.take_for(W, 8)
    assert ids(first) == [1, 3]
    assert queue.take_for(W, 8) == []
    queue.landed(first, 1.0)
    queue.check()
    assert ids(queue.take_for(W, 8)) == [2, 4]


def test_sequences_are_spread_over_the_workers_and_stay_there() -> None:
    queue = queue_of(*(request(i, name) for i, name in enumerate("abcd", 1)))
    both(queue)
    first = [queue.take_for(W, 8), queue.take_for(V, 8)]
    assert [ids(batch) for batch in first] == [[1, 3], [2, 4]]
    for batch in first:
        queue.landed(batch, 1.0)
    for i, name in enumerate("dcba", 5):
        queue.add(request(i, name))
    both(queue)
    assert [ids(queue.take_for(W, 8)), ids(queue.take_for(V, 8))] == [[6, 8], [5, 7]]


def test_a_worker_that_stays_is_preferred_to_one_that_drains() -> None:
    queue = queue_of(request(1, "a"), request(2, "b"), request(3, "c"))
    queue.bind({W: True, V: False})
    assert ids(queue.take_for(V, 8)) == [1, 2, 3]


def test_rows_and_bytes_bound_a_batch() -> None:
    half = bytes(BATCH_BYTES_MAX // 2 + 1)
    rows = queue_of(request(1, "a", rows=3), request(2, "b", rows=2), request(3, "c"))
    rows.bind({W: False})
    assert [ids(rows.take_for(W, 4)), ids(rows.take_for(W, 4))] == [[1], [2, 3]]
    large = queue_of(request(1, "a", tensors=half), request(2, "b", tensors=half))
    large.bind({W: False})
    assert ids(large.take_for(W, 4)) == [1]


def test_a_request_without_a_sequence_is_one_by_itself_and_bounded_by_the_queue() -> None:
    queue = queue_of(request(1), request(2), queue_size_max=2)
    with pytest.raises(QueueFull, match="its 2 requests"):
        queue.add(request(3))
    queue.add(request(4, "a"))
    both(queue)
    batches = [queue.take_for(W, 8), queue.take_for(V, 8)]
    assert sorted(map(ids, batches)) == [[1, 4], [2]]
    for batch in batches:
        queue.landed(batch, 1.0)
    queue.check()
    assert sum(map(len, queue.bound.values())) == 1, "they are over, and the sequence is not"


def test_what_names_no_sequence_as_it_should_is_refused() -> None:
    bad = open_request(1)
    for name in ("", 7, "x" * 257):
        bad.options = {"sequence": name}
        with pytest.raises(InvalidInput, match="1 to 256 characters"):
            queue_of(bad)


def test_bytes_are_bounded_for_all_together() -> None:
    with pytest.raises(QueueFull, match="its 3 bytes"):
        queue_of(request(1, "a"), request(2, "b"), queue_bytes_max=3)


def test_the_end_closes_a_sequence_when_it_was_run() -> None:
    queue = queue_of(request(1, "a"), request(2, "a", ends=True))
    queue.bind({W: False})
    with pytest.raises(NoSequence):
        queue.add(request(3, "a"))
    for _ in range(2):
        queue.landed(queue.take_for(W, 8), 1.0)
    queue.check()
    assert not queue.sequences.open and not queue.bound


def test_a_start_behind_the_end_stays_with_the_worker() -> None:
    queue = queue_of(request(1, "a", ends=True), request(2, "a", starts=True), request(3, "a"))
    queue.bind({W: False})
    for id in (1, 2, 3):
        batch = queue.take_for(W, 8)
        assert ids(batch) == [id]
        queue.landed(batch, 1.0)
    assert list(queue.sequences.open) == ["a"]


def test_an_end_that_was_withdrawn_ends_nothing() -> None:
    end = request(2, "a", ends=True)
    queue = queue_of(request(1, "a"), end)
    queue.remove(end)
    queue.add(request(3, "a"))
    queue.check()


def test_without_its_start_the_rest_of_a_sequence_is_refused() -> None:
    start = request(1, "a", starts=True)
    queue = queue_of(start, request(2, "a"), request(3, "b"))
    queue.remove(start)
    queue.check()
    assert told(queue) == {2: "sequence 'a' of 'm': its start was not run"}
    with pytest.raises(NoSequence, match="its start was not run"):
        queue.add(request(4, "a"))
    assert len(queue) == 1


def test_one_in_the_middle_may_be_withdrawn() -> None:
    middle = request(2, "a")
    queue = queue_of(request(1, "a"), middle, request(3, "a"))
    queue.bind({W: False})
    queue.remove(middle)
    queue.check()
    queue.landed(queue.take_for(W, 8), 1.0)
    assert ids(queue.take_for(W, 8)) == [3]


def test_what_was_withdrawn_while_it_ran_holds_up_nobody_when_its_batch_is_over() -> None:
    queue = queue_of(request(1, "a"), request(2, "a"))
    queue.bind({W: False})
    batch = queue.take_for(W, 8)
    queue.remove(batch[0])
    assert not queue.take_for(W, 8)
    queue.landed(batch, 1.0)
    assert ids(queue.take_for(W, 8)) == [2]


def test_what_a_lost_worker_had_seen_is_over_and_what_it_had_not_moves() -> None:
    queue = queue_of(request(1, "a"), request(2, "a"))
    queue.bind({W: False})
    queue.take_for(W, 8)
    queue.add(request(3, "b"))
    queue.add(request(4))
    queue.bind({W: False})
    assert queue.lose(W, "its worker was lost", 1.0)
    queue.check()
    assert told(queue) == {2: "sequence 'a' of 'm': its worker was lost"}
    queue.bind({V: False})
    assert ids(queue.take_for(V, 8)) == [3, 4]
    with pytest.raises(NoSequence, match="its worker was lost"):
        queue.add(request(5, "a"))


def test_a_result_that_comes_after_its_sequence_was_lost_changes_nothing() -> None:
    queue = queue_of(request(1, "a"))
    queue.bind({W: False})
    batch = queue.take_for(W, 8)
    queue.keep({V: False}, 1.0)
    queue.add(request(2, "a", starts=True, arrived=1.5))
    queue.landed(batch, 2.0)
    queue.check()
    queue.bind({V: False})
    assert ids(queue.take_for(V, 8)) == [2]


def test_only_sequences_of_workers_that_are_gone_are_lost() -> None:
    queue = queue_of(request(1, "a"), request(2, "b"))
    both(queue)
    batches = {who: queue.take_for(who, 8) for who in (W, V)}
    assert not queue.keep({V: False}, 1.0)
    for batch in batches.values():
        queue.landed(batch, 1.0)
    assert list(queue.sequences.open) == ["b"] and queue.has_open(V) and not queue.has_open(W)


def test_an_idle_sequence_is_closed_in_time() -> None:
    queue = queue_of(request(1, "a"))
    queue.bind({W: False})
    queue.landed(queue.take_for(W, 8), 5.0)
    queue.close_due(5.9)
    assert queue.has_open(W)
    queue.close_due(6.0)
    queue.check()
    assert not queue.has_open(W)


def test_one_whose_only_request_was_withdrawn_rests() -> None:
    only = request(1, "a")
    queue = queue_of(only)
    queue.remove(only)
    queue.check()
    queue.close_due(1.0)
    assert not queue.sequences.open


def test_figures_are_of_what_may_go_and_not_of_what_waits_behind_it() -> None:
    queue = queue_of(request(1, "a", rows=2, arrived=1.0), request(2, "a", rows=5, timeout_s=0.1))
    queue.add(request(3, "b", arrived=2.0, timeout_s=3.0))
    queue.bind({W: False})
    assert (queue.rows_for(W), queue.oldest_for(W), queue.earliest_for(W)) == (3, 1.0, 5.0)


def test_a_version_that_is_described_anew_keeps_what_waits() -> None:
    plain = queue_for(spec())
    plain.add(open_request(1))
    queue = queue_instead(plain, spec(**KEYS))
    assert isinstance(queue, SequenceQueue) and ids(list(queue)) == [1]
    queue.add(request(2, "a"))
    queue.check()
    assert queue_instead(queue, spec(**{**KEYS, "sequences_max": 1})) is queue
    assert queue.sequences.spec.sequences_max == 1
    again = queue_instead(queue, spec())
    assert type(again) is Queue and sorted(ids(list(again))) == [1, 2]
    assert queue_instead(again, spec(batch_size_max=2)) is again and again.spec.batch_size_max == 2


Op = st.tuples(
    st.sampled_from(["add", "add", "add", "take", "land", "remove", "lose", "keep", "time"]),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(Op, max_size=60), st.sampled_from(["any", "start"]))
def test_whatever_happens_every_request_leaves_once_and_in_its_order(ops: list[Any], opens: str) -> None:
    queue = queue_of(sequence_opens=opens, sequences_max=3, sequence_queue_max=3)
    workers, now = {W: False, V: False}, 0.0
    flying: dict[bytes, list[OpenRequest]] = {}
    waiting: list[OpenRequest] = []
    left: Counter[int] = Counter()
    ran: dict[str, list[int]] = {}
    for id, (what, n, starts, ends) in enumerate(ops):
        who, now = (W, V)[n % 2], now + 0.1
        if what == "add":
            made = request(
                id, ("", "a", "b", "c", "d", "e")[n], starts and n > 0, ends and n > 0, arrived=now
            )
            try:
                queue.add(made)
                waiting.append(made)
            except HeadwayError:
                pass
        elif what == "take" and who not in flying and who in workers:
            queue.bind(workers)
            flying[who] = queue.take_for(who, 2)
            for each in flying[who]:
                left[each.id] += 1
                ran.setdefault(each.options.get("sequence", f"own {each.id}"), []).append(each.id)
        elif what == "land" and who in flying:
            queue.landed(flying.pop(who), now)
        elif what == "remove" and waiting:
            gone = waiting[n % len(waiting)]
            left[gone.id] += id_in(queue, gone)
            queue.remove(gone)
        elif what == "lose":
            flying.pop(who, None)
            queue.lose(who, "lost", now)
        elif what == "keep":
            workers = {W: False, V: False} if starts else {who: ends}
            queue.keep(workers, now)
        elif what == "time":
            now += 0.5
            queue.close_due(now)
            for over, _ in queue.take_over():
                left[over.id] += 1
        queue.check()
    queue.take_over()
    assert all(count <= 1 for count in left.values()), "a request left twice"
    assert all(order == sorted(order) for order in ran.values()), "a sequence was not run in its order"
    assert {r.id for r in waiting} >= set(left)


def id_in(queue: SequenceQueue, request: OpenRequest) -> bool:
    return any(each is request for each in queue)
