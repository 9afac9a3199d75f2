"""The session: the worker's place on the roster, and what it owes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import RemoteProtocolError, TooLarge, WorkerLost
from headway.messages import (
    OK,
    Alive,
    Batch,
    Batches,
    BatchReply,
    BatchRequest,
    Copy,
    CopyState,
    Dismiss,
    Drops,
    Heartbeat,
    Join,
    Leave,
    Load,
    Piece,
    Pieces,
    Ping,
    Result,
    Results,
    Unload,
    Welcome,
)
from headway.parts import PART_BYTES_MAX
from headway.pieces import FRAMING_BYTES, WAITING_BYTES_MAX
from headway_worker.orders import Drop, Run
from headway_worker.session import REPLY_BYTES_MAX, RETRY_S, About, Drain, Leaving, Send, Session, Unsent

ABOUT = About("w", "host", 7, "cpu")
WELCOME = Welcome(b"one", 1000)
M_LOADING, M_READY = Copy("m", "1", "loading", "", {}), Copy("m", "1", "ready", "", {})
M_GONE = Copy("m", "1", "gone", "", {})


class Bench:
    """A session, its broker and its runner played by the test."""

    def __init__(self, joined: bool = True, about: About = ABOUT) -> None:
        self.session = Session(about, join_s=0.5, drain_s=30.0)
        self.now = 100.0
        if joined:
            self.wake()
            self.handle(WELCOME)

    def handle(self, event: Any) -> list[Any]:
        actions = self.session.handle(event, self.now)
        self.session.check()
        return actions

    def wake(self, after_s: float = 0.0) -> list[Any]:
        """What is sent, or the end."""
        self.now += after_s
        actions = self.session.wake(self.now)
        self.session.check()
        return [action.message if isinstance(action, Send) else action for action in actions]

    def holds(self, *ids: int) -> None:
        self.handle(Batches([batch(id) for id in ids]))


def batch(id: int, requests: int = 1) -> Batch:
    return Batch(id, "m", "1", 1000, [BatchRequest(1000, 0, {}, b"t")] * requests)


def result(id: int, *contents: bytes) -> Result:
    return Result(id, 10, [BatchReply(OK, content, {}) for content in contents or (b"answer",)])


def test_it_says_join_until_it_is_welcomed() -> None:
    bench = Bench(joined=False)
    assert bench.session.next_wake() < bench.now
    assert bench.wake() == [Join("w", "host", 7, "cpu", [])]
    assert bench.wake() == []
    assert bench.session.next_wake() == 100.5
    assert bench.wake(0.5) == [Join("w", "host", 7, "cpu", [])]


def test_once_welcomed_it_says_that_it_lives_twice_as_often_as_it_must() -> None:
    bench = Bench()
    assert bench.session.next_wake() == 100.5
    assert bench.wake(0.49) == []
    assert bench.wake(0.01) == [Alive()]
    assert bench.wake(0.5) == [Alive()]


def test_orders_go_to_the_runner_as_they_come() -> None:
    bench = Bench()
    load, unload = Load("m", "1", "/models/m/1"), Unload("m", "1")
    assert bench.handle(load) == [load]
    assert bench.session.copies == {("m", "1"): M_LOADING}
    assert bench.handle(Batches([batch(1), batch(2)])) == [Run(batch(1), 100.0), Run(batch(2), 100.0)]
    assert bench.handle(unload) == [unload]
    assert ("m", "1") in bench.session.copies, "a copy is here until it is gone"
    bench.handle(M_GONE)
    assert bench.session.copies == {}
    assert bench.wake() == [CopyState(M_GONE)]


def test_a_copy_that_shall_go_is_not_offered_to_a_broker_that_does_not_know_of_that() -> None:
    bench = Bench()
    bench.handle(M_READY)
    bench.handle(Unload("m", "1"))
    bench.handle(Heartbeat(b"two"))
    assert [join.copies for join in bench.wake()] == [[]]
    bench.handle(WELCOME._replace(broker=b"two"))
    assert bench.handle(Load("m", "1", "/models/m/1"))
    bench.handle(M_GONE)
    assert bench.wake() == [], "it would be taken for the end of the copy that comes"
    assert bench.session.copies == {("m", "1"): M_LOADING}
    bench.handle(M_READY)
    assert bench.wake() == [CopyState(M_READY)]


def test_a_copy_that_shall_come_again_is_offered_before_the_old_one_is_gone() -> None:
    bench = Bench()
    for event in (M_READY, Unload("m", "1"), Load("m", "1", "/models/m/1"), Dismiss("who are you?", 0)):
        bench.handle(event)
    assert [join.copies for join in bench.wake()] == [[M_LOADING]]


def test_results_are_collected_and_leave_in_one_message() -> None:
    bench = Bench()
    bench.holds(1, 2)
    bench.handle(result(1))
    bench.handle(result(2))
    assert bench.session.next_wake() < bench.now
    assert bench.wake() == [Results([result(1), result(2)])]
    assert bench.wake() == []


def test_a_result_of_a_batch_that_is_not_open_is_dropped() -> None:
    bench = Bench()
    bench.holds(1)
    bench.handle(result(1))
    bench.wake()
    bench.handle(result(1))
    bench.handle(result(7))
    assert bench.wake() == []


def test_a_large_result_leaves_in_parts_of_which_the_last_says_so() -> None:
    bench = Bench()
    bench.holds(1)
    half = bytes(PART_BYTES_MAX // 2)
    bench.handle(result(1, half, half, half, b"small"))
    sent = [r for message in bench.wake() for r in message.results]
    assert [(r.batch, r.first, len(r.replies), r.done) for r in sent] == [(1, 0, 2, 0), (1, 2, 2, 1)]


def test_a_result_without_replies_is_sent_all_the_same() -> None:
    bench = Bench()
    bench.holds(1)
    bench.handle(Result(1, 10, []))
    assert bench.wake() == [Results([Result(1, 10, [], 0, 1)])]


def test_a_reply_over_the_limit_becomes_an_error_that_says_so() -> None:
    bench = Bench()
    bench.holds(1)
    bench.handle(result(1, bytes(REPLY_BYTES_MAX + 1), b"fine"))
    [message] = bench.wake()
    too_large, fine = message.results[0].replies
    assert too_large.code == TooLarge.code and str(REPLY_BYTES_MAX) in too_large.content
    assert fine.content == b"fine"


def test_a_join_says_what_the_worker_offers() -> None:
    about = About("w", "host", 7, "cuda", {"memory_bytes": 1 << 30, "cuda_mps": "client"})
    join = Join("w", "host", 7, "cuda", [], {"memory_bytes": 1 << 30, "cuda_mps": "client"})
    assert Bench(joined=False, about=about).wake() == [join]


def test_dismissed_it_joins_again_with_the_copies_it_has() -> None:
    bench = Bench()
    bench.handle(Load("m", "1", "/m"))
    bench.handle(M_READY)
    bench.wake()
    assert bench.handle(Dismiss("who are you?", 0)) == []
    assert bench.wake() == [Join("w", "host", 7, "cpu", [M_READY])]


def test_a_heartbeat_of_another_broker_makes_it_join_again_and_of_its_own_does_not() -> None:
    bench = Bench()
    bench.handle(Heartbeat(b"one"))
    assert bench.wake() == []
    bench.handle(Heartbeat(b"two"))
    assert bench.wake() == [Join("w", "host", 7, "cpu", [])]


def test_what_was_meant_for_the_old_broker_is_not_sent_to_the_new_one() -> None:
    bench = Bench()
    bench.holds(1, 2)
    bench.handle(result(1))
    bench.handle(M_READY)
    bench.handle(Dismiss("who are you?", 0))
    bench.handle(result(2))
    assert bench.wake() == [Join("w", "host", 7, "cpu", [M_READY])]
    bench.handle(WELCOME._replace(broker=b"two"))
    assert bench.wake() == []


def test_the_broker_that_gave_a_batch_up_hears_when_the_worker_is_through_with_it_and_no_more() -> None:
    bench = Bench()
    bench.holds(1, 2, 3)
    bench.handle(result(1))
    bench.handle(Dismiss("silent", 0))
    bench.handle(result(2))
    assert bench.wake() == [Join("w", "host", 7, "cpu", [])]
    bench.handle(WELCOME)
    assert bench.wake() == [Results([Result(1, 0, []), Result(2, 0, [])])]
    bench.handle(result(3))
    bench.handle(result(3))
    assert bench.wake() == [Results([Result(3, 0, [])])]


@pytest.mark.parametrize("changed", [M_READY, M_GONE])
def test_a_copy_that_changed_while_the_join_was_on_its_way_is_told_after_the_welcome(changed: Copy) -> None:
    bench = Bench(joined=False)
    bench.handle(Load("m", "1", "/m"))
    assert bench.wake() == [Join("w", "host", 7, "cpu", [M_LOADING])]
    bench.handle(changed)
    assert bench.wake() == []
    bench.handle(WELCOME)
    assert bench.wake() == [CopyState(changed)]
    bench.handle(WELCOME)
    assert bench.wake() == []


def test_a_final_dismissal_of_a_worker_that_does_nothing_ends_it_in_order() -> None:
    assert Bench().handle(Dismiss("drained", 1)) == [Leaving("drained", stuck=False)]


def test_a_final_dismissal_during_a_load_ends_the_process_as_stuck() -> None:
    bench = Bench()
    bench.handle(Load("m", "1", "/models/m/1"))
    assert bench.handle(Dismiss("not loaded", 1)) == [Leaving("not loaded", stuck=True)]


def test_a_worker_that_asked_to_leave_while_it_loads_is_not_stuck() -> None:
    bench = Bench()
    bench.handle(Load("m", "1", "/models/m/1"))
    bench.handle(Drain("SIGTERM"))
    assert bench.handle(Dismiss("you asked to leave", 1)) == [Leaving("you asked to leave", stuck=False)]


def test_told_to_drain_it_asks_to_leave_and_goes_when_it_is_let_go() -> None:
    bench = Bench()
    bench.holds(1)
    assert bench.handle(Drain("SIGTERM")) == []
    assert bench.session.draining
    assert bench.wake() == [Leave("SIGTERM")]
    bench.handle(Drain("SIGTERM"))
    assert bench.wake() == [], "it asks once"
    bench.handle(result(1))
    assert bench.wake() == [Results([result(1)])]
    assert bench.handle(Dismiss("you asked", 1)) == [Leaving("you asked", stuck=False)]


def test_a_worker_that_drains_and_is_given_up_with_its_batch_open_is_stuck() -> None:
    bench = Bench()
    bench.holds(1)
    bench.handle(Drain("SIGTERM"))
    assert bench.handle(Dismiss("batch not done", 1)) == [Leaving("batch not done", stuck=True)]


@pytest.mark.parametrize("held", [True, False])
def test_the_time_to_drain_ends(held: bool) -> None:
    bench = Bench()
    if held:
        bench.holds(1)
    bench.handle(Drain("SIGTERM"))
    assert bench.wake(29.9) and bench.session.next_wake() <= 130.0
    assert bench.wake(0.1) == [Leaving("the time to drain is over", stuck=held)]


def test_the_time_to_drain_ends_without_a_connection_too() -> None:
    bench = Bench()
    bench.handle(Drain("SIGTERM"))
    [leave] = bench.wake()
    bench.now += 29.99
    bench.handle(Unsent(leave))
    assert bench.wake(0.011) == [Leaving("the time to drain is over", stuck=False)]


def test_told_to_drain_before_it_was_welcomed_it_goes_at_once() -> None:
    assert Bench(joined=False).handle(Drain("SIGTERM")) == [Leaving("SIGTERM", stuck=False)]


@pytest.mark.parametrize("event", [Dismiss("who are you?", 0), Heartbeat(b"two")])
@pytest.mark.parametrize("held", [True, False])
def test_off_the_roster_while_draining_it_goes_and_does_not_join_again(event: Any, held: bool) -> None:
    bench = Bench()
    if held:
        bench.holds(1)
    bench.handle(Drain("SIGTERM"))
    assert bench.handle(event) == [Leaving("off the roster while draining", stuck=held)]


def test_results_that_could_not_be_sent_are_sent_later_and_in_order() -> None:
    bench = Bench()
    bench.holds(1, 2)
    half = bytes(PART_BYTES_MAX // 2 + 1)
    bench.handle(result(1, half, half))
    unsent = bench.wake()
    assert [r.done for message in unsent for r in message.results] == [0, 1]
    for message in unsent:
        bench.handle(Unsent(message))
    bench.handle(result(2))
    assert bench.wake() == [], "the socket is left alone for a moment"
    assert bench.session.next_wake() == 100.0 + RETRY_S
    sent = [r for message in bench.wake(RETRY_S) for r in message.results]
    assert [(r.batch, r.first, r.done) for r in sent] == [(1, 0, 0), (1, 1, 1), (2, 0, 1)]


def piece(batch: int, content: bytes = b"p", place: int = 0) -> Piece:
    return Piece(batch, place, content, {})


def test_pieces_leave_at_once_and_before_the_result() -> None:
    bench = Bench()
    bench.holds(1, 2)
    bench.handle(piece(1, b"a"))
    assert bench.session.next_wake() < bench.now
    assert bench.wake() == [Pieces([piece(1, b"a")])]
    bench.handle(piece(1, b"b"))
    bench.handle(piece(1, b"c"))
    bench.handle(result(1))
    assert bench.wake() == [Pieces([piece(1, b"b"), piece(1, b"c")]), Results([result(1)])]


def test_pieces_of_batches_that_nobody_waits_for_are_dropped() -> None:
    bench = Bench()
    bench.holds(1, 2)
    bench.handle(result(1))
    bench.wake()
    bench.handle(piece(1))
    bench.handle(piece(3))
    assert bench.wake() == []
    bench.handle(piece(2))
    bench.handle(Dismiss("lost patience", 0))
    bench.handle(piece(2))
    bench.handle(WELCOME)
    assert [m for m in bench.wake() if isinstance(m, Pieces)] == []


def test_pieces_that_could_not_be_sent_are_sent_later_and_in_order() -> None:
    bench = Bench()
    bench.holds(1)
    half = bytes(PART_BYTES_MAX // 2 + 1)
    for content in (b"a" + half, b"b" + half):
        bench.handle(piece(1, content))
    bench.handle(result(1))
    unsent = bench.wake()
    assert [type(message) for message in unsent] == [Pieces, Pieces, Results]
    for message in unsent:
        bench.handle(Unsent(message))
    assert bench.session.next_wake() == 100.0 + RETRY_S
    assert bench.wake(RETRY_S) == unsent


def test_a_reply_whose_pieces_have_no_room_left_ends_in_an_error() -> None:
    bench = Bench()
    bench.handle(Batches([batch(1, requests=2)]))
    large = bytes(WAITING_BYTES_MAX // 2 - FRAMING_BYTES)
    for content in (large, large, b"too much", b""):
        bench.handle(piece(1, content, place=1))
    bench.handle(result(1, b"fine", b"torn"))
    sent = bench.wake()
    assert [len(p.content) for m in sent if isinstance(m, Pieces) for p in m.pieces] == [len(large)] * 2
    (results,) = sent[-1].results
    assert [reply.code for reply in results.replies] == [OK, WorkerLost.code]
    bench.holds(2)
    bench.handle(piece(2))
    bench.handle(result(2, b"fine"))
    assert bench.wake() == [Pieces([piece(2)]), Results([result(2, b"fine")])]


def test_a_piece_shows_that_its_batch_goes_on() -> None:
    bench = Bench()
    bench.holds(1)
    bench.wake(0.8)
    bench.handle(piece(1))
    assert bench.session.leases.until == bench.now + 1.0


def test_a_copys_state_that_could_not_be_sent_is_sent_later() -> None:
    bench = Bench()
    bench.handle(M_READY)
    [message] = bench.wake()
    bench.handle(Unsent(message))
    assert bench.wake(RETRY_S) == [CopyState(M_READY)]


def test_a_heartbeat_that_could_not_be_sent_is_forgotten_and_the_next_is_soon() -> None:
    bench = Bench()
    [alive] = bench.wake(0.5)
    bench.handle(Unsent(alive))
    assert bench.wake(RETRY_S) == []
    assert bench.wake(0.5) == [Alive()]


def test_a_message_that_workers_do_not_get_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError, match="a worker gets no Ping"):
        Bench().handle(Ping())  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(("batch", "result", "dismiss", "welcome", "unsent")), max_size=30))
def test_every_batch_is_answered_once_to_the_broker_that_sent_it(events: list[str]) -> None:
    bench, next_id = Bench(), 0
    owed: list[int] = []  # to the broker of now
    running: list[int] = []  # whatever the runner still has
    told: list[int] = []
    for kind in events:
        sent = bench.wake(1.0)
        if kind == "batch" and bench.session._joined:
            next_id += 1
            bench.holds(next_id)
            owed.append(next_id)
            running.append(next_id)
        elif kind == "result" and running:
            bench.handle(result(running.pop(0)))
        elif kind == "dismiss":
            bench.handle(Dismiss("lost patience", 0))
            owed = []
        elif kind == "welcome":
            bench.handle(WELCOME)
        if kind == "unsent":
            for message in sent:
                bench.handle(Unsent(message))
        else:
            told += [r.batch for message in sent if isinstance(message, Results) for r in message.results]
    for id in running:
        bench.handle(result(id))
    told += [r.batch for message in bench.wake(1.0) if isinstance(message, Results) for r in message.results]
    assert len(told) == len(set(told)), "answered twice"
    assert set(owed) <= set(told), "not answered"
    assert told == sorted(told), "out of order"


def test_a_batch_that_nobody_waits_for_is_named_to_the_runner_as_long_as_it_is_not_answered() -> None:
    bench = Bench()
    bench.holds(1, 2, 3)
    bench.handle(Result(2, 5, [BatchReply(OK, b"", {})]))
    assert bench.handle(Drops([1, 2, 3, 77])) == [Drop(1), Drop(3)]
    assert list(bench.session.open) == [1, 3], "they are answered as ever, in any order"
    bench.handle(Result(3, 0, [BatchReply(OK, b"", {})]))
    bench.handle(Result(1, 0, [BatchReply(OK, b"", {})]))
    [results] = [message for message in bench.wake() if isinstance(message, Results)]
    assert [result.batch for result in results.results] == [2, 3, 1]


def test_a_worker_that_is_off_the_roster_drops_what_it_held_and_says_when_that_has_ended() -> None:
    bench = Bench()
    bench.holds(1, 2)
    assert bench.handle(Dismiss("join again", 0)) == [Drop(1), Drop(2)]
    bench.wake()
    bench.handle(WELCOME)
    bench.handle(Result(2, 5, [BatchReply(OK, b"", {})]))
    [results] = [message for message in bench.wake() if isinstance(message, Results)]
    assert [(result.batch, result.replies) for result in results.results] == [(2, [])]
