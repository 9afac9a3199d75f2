"""The caller's side of the wire: every call has one outcome, whatever the broker does.

`turn` does what the real loops do: wake, then do the actions, one after the other.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headway.calls import Abandon, Advance, Call, Calls, CallTimes, Release, Send, Settle, Unsent
from headway.errors import (
    BrokerUnreachable,
    DeadlineExceeded,
    InternalError,
    QueueFull,
    RemoteProtocolError,
    WorkerLost,
)
from headway.messages import (
    REQUESTS_MAX,
    TIMEOUT_MS_MAX,
    Alive,
    Answer,
    Bye,
    Cancels,
    Heartbeat,
    Ping,
    Query,
    Reclaims,
    Released,
    Replies,
    Reply,
    Requests,
)
from headway.parts import PART_BYTES_MAX
from headway.wire import decode, encode

TIMES = CallTimes()


def turn(calls, now, connected=True):
    """One turn of a loop: the messages that were sent, and the outcomes by id."""
    sent, settled = [], {}
    for action in calls.wake(now):
        match action:
            case Settle(id, outcome):
                settled[id] = outcome
            case Send(message) if connected:
                sent.append(message)
            case Send(message):
                calls.handle(Unsent(message), now)
    return sent, settled


def ids_of(messages):
    return [r.id for m in messages if isinstance(m, Requests) for r in m.requests]


def attempts_of(messages):
    return {r.id: r.attempt for m in messages if isinstance(m, Requests) for r in m.requests}


def acquainted(now=0.0):
    """Calls that know their broker."""
    calls = Calls()
    calls.handle(Heartbeat(b"one"), now)
    return calls


def ok(*ids):
    return Replies([Reply(id, 0, b"", {}) for id in ids])


# ---- sending


def test_nothing_open_means_nothing_to_do():
    calls = Calls()
    assert calls.next_wake() is None
    assert calls.wake(0) == []


def test_calls_started_before_a_turn_leave_in_one_message():
    calls = acquainted()
    for id in range(300):
        calls.handle(Call(id, 10), 0)
    assert calls.next_wake() == -math.inf
    sent, settled = turn(calls, 0)
    assert [type(m) for m in sent] == [Requests, Ping]
    assert ids_of(sent) == list(range(300))
    assert settled == {}


def test_a_request_carries_all_that_was_asked():
    calls = acquainted()
    calls.handle(Call(7, 11.5, "tiny", "2", 3, {"a": 1}, b"tensors"), 10)
    (requests, _), _ = turn(calls, 10)
    assert requests.requests == [(7, "tiny", "2", 1500, 0, 3, {"a": 1}, b"tensors")]


@pytest.mark.parametrize(
    ("deadline", "left_ms"), [(0.0004, 0), (math.inf, TIMEOUT_MS_MAX), (1e300, TIMEOUT_MS_MAX)]
)
def test_the_time_left_is_within_what_the_wire_allows(deadline, left_ms):
    calls = acquainted()
    calls.handle(Call(1, deadline), 0)
    sent, _ = turn(calls, 0)
    assert sent[0].requests[0].timeout_ms == left_ms
    assert decode(encode(sent[0])) == sent[0]


def test_large_requests_leave_in_messages_of_their_own():
    calls = acquainted()
    for id in range(5):
        calls.handle(Call(id, 10, tensors=bytes(PART_BYTES_MAX // 2 - 2000)), 0)
    sent, _ = turn(calls, 0)
    assert [len(m.requests) for m in sent if isinstance(m, Requests)] == [2, 2, 1]
    assert ids_of(sent) == list(range(5))


def test_large_options_count_as_well():
    calls = acquainted()
    for id in range(3):
        calls.handle(Call(id, 10, options_bytes=PART_BYTES_MAX // 2), 0)
    assert len([m for m in turn(calls, 0)[0] if isinstance(m, Requests)]) == 3


def test_a_flood_of_small_calls_keeps_to_what_a_message_may_list():
    calls = acquainted()
    for id in range(REQUESTS_MAX + 5):
        calls.handle(Call(id, 10), 0)
    sent, _ = turn(calls, 0)
    assert len(ids_of(sent)) == REQUESTS_MAX + 5
    assert all(len(m.requests) <= REQUESTS_MAX for m in sent if isinstance(m, Requests))
    for id in range(REQUESTS_MAX + 5):
        calls.handle(Abandon(id), 0)
    sent, _ = turn(calls, 0)
    assert [len(m.ids) for m in sent if isinstance(m, Cancels)] == [REQUESTS_MAX, 5]


def test_questions_are_messages_of_their_own():
    calls = acquainted()
    calls.handle(Call(1, 10, query="models"), 0)
    calls.handle(Call(2, 10), 0)
    sent, _ = turn(calls, 0)
    assert Query(1, "models") in sent
    assert ids_of(sent) == [2]


# ---- outcomes


def test_a_reply_settles_its_call_once():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    assert calls.handle(ok(1, 1), 0.1) == [Settle(1, Reply(1, 0, b"", {}))]
    assert calls.handle(ok(1), 0.2) == []
    assert len(calls) == 0


def test_a_reply_nobody_waits_for_is_dropped():
    assert acquainted().handle(ok(99), 0) == []


@pytest.mark.parametrize(
    ("meta", "retry_after_s"),
    [
        ({"retry_after_ms": 250}, 0.25),
        ({}, None),
        ({"retry_after_ms": "x"}, None),
        ({"retry_after_ms": True}, None),
        ({"retry_after_ms": -1}, None),
    ],
)
def test_an_error_comes_with_its_text_and_its_time_to_retry(meta, retry_after_s):
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    (settle,) = calls.handle(Replies([Reply(1, QueueFull.code, "full", meta)]), 0)
    assert type(settle.outcome) is QueueFull
    assert (str(settle.outcome), settle.outcome.retry_after_s) == ("full", retry_after_s)


def test_an_unknown_code_is_an_internal_error():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    (settle,) = calls.handle(Replies([Reply(1, 200, "new", {})]), 0)
    assert type(settle.outcome) is InternalError


def test_an_answer_settles_its_question_once():
    calls = acquainted()
    calls.handle(Call(1, 10, query="stats"), 0)
    assert calls.handle(Answer(1, {"a": 1}), 0) == [Settle(1, {"a": 1})]
    assert calls.handle(Answer(1, {"a": 1}), 0) == []


@pytest.mark.parametrize("message", [Ping(), Bye(), Alive(), Requests([]), Cancels([])])
def test_a_message_that_callers_do_not_get_is_refused(message):
    with pytest.raises(RemoteProtocolError, match=type(message).__name__):
        Calls().handle(message, 0)


def test_a_call_that_was_sent_and_not_answered_ends_a_grace_after_its_deadline():
    calls = acquainted()
    calls.handle(Call(1, 1.0), 0)
    turn(calls, 0)
    for tenths in range(1, 15):
        calls.handle(Heartbeat(b"one"), tenths / 10)
        assert turn(calls, tenths / 10)[1] == {}
    sent, settled = turn(calls, 1.0 + TIMES.grace_s)
    assert type(settled[1]) is DeadlineExceeded
    assert Cancels([1]) in sent + turn(calls, 1.6)[0]


def test_a_call_that_could_not_be_sent_ends_at_its_deadline():
    calls = Calls()
    calls.handle(Call(1, 1.0), 0)
    assert turn(calls, 0, connected=False)[1] == {}
    _, settled = turn(calls, 1.0, connected=False)
    assert type(settled[1]) is BrokerUnreachable
    assert calls.next_wake() is None
    assert turn(calls, 2.0) == ([], {})


@pytest.mark.parametrize("deadline", [0.0, -5.0, -math.inf])
def test_a_call_that_is_late_at_once_is_not_sent_and_not_the_brokers_fault(deadline):
    calls = acquainted()
    calls.handle(Call(1, deadline), 0)
    sent, settled = turn(calls, 0)
    assert type(settled[1]) is DeadlineExceeded
    assert ids_of(sent) == []


def test_an_endless_call_waits_as_long_as_the_broker_lives():
    calls = acquainted()
    calls.handle(Call(1, math.inf), 0)
    for second in range(0, 100_000, 5):
        calls.handle(Heartbeat(b"one"), second)
        assert turn(calls, second)[1] == {}
    assert calls.handle(ok(1), 100_001)


# ---- cancelling


def test_only_what_was_sent_is_cancelled():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Call(2, 10), 0)
    calls.handle(Abandon(1), 0)
    calls.handle(Abandon(2), 0)
    sent, settled = turn(calls, 0.01)
    assert (sent, settled) == ([Cancels([1])], {})
    assert calls.next_wake() is None


def test_an_abandoned_call_is_never_settled():
    calls = acquainted()
    calls.handle(Call(1, 1), 0)
    turn(calls, 0)
    calls.handle(Abandon(1), 0)
    assert calls.handle(ok(1), 0) == []
    assert turn(calls, 100)[1] == {}


def test_abandoning_what_is_settled_or_unknown_cancels_nothing():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(ok(1), 0)
    calls.handle(Abandon(1), 0)
    calls.handle(Abandon(99), 0)
    assert calls.next_wake() is None


def test_a_cancel_that_cannot_be_sent_is_forgotten():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Abandon(1), 0)
    turn(calls, 0.01, connected=False)
    assert calls.next_wake() is None


# ---- no connection


@pytest.mark.parametrize("broker", [b"one", b"two"])
def test_what_could_not_be_sent_is_sent_as_a_first_attempt_when_it_is_known_who_is_there(broker):
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    calls.handle(Call(2, 10, query="stats"), 0)
    assert turn(calls, 0, connected=False)[0] == []
    assert calls.next_wake() == TIMES.retry_s
    assert turn(calls, TIMES.retry_s / 2)[0] == []
    calls.handle(Call(3, 10), TIMES.retry_s)
    assert turn(calls, TIMES.retry_s)[0] == [Ping()]
    assert calls.next_wake() > TIMES.retry_s, "it does not spin"
    calls.handle(Heartbeat(broker), 0.1)
    sent, _ = turn(calls, 0.1)
    assert attempts_of(sent) == {1: 0, 3: 0}
    assert Query(2, "stats") in sent


@pytest.mark.parametrize(
    ("message", "sent_again"),
    [
        (Heartbeat(b"one"), {}),
        (Heartbeat(b"two"), {1: 1}),
        (Released(b"one", []), {}),
        (Released(b"two", []), {1: 1}),
    ],
)
def test_after_a_refusal_the_broker_says_who_it_is_before_it_gets_requests(message, sent_again):
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Call(2, 10), 0.1)
    turn(calls, 0.1, connected=False)
    calls.handle(Call(3, 10), 0.2)
    assert ids_of(turn(calls, 0.2)[0]) == []
    calls.handle(message, 0.3)
    assert attempts_of(turn(calls, 0.3)[0]) == {2: 0, 3: 0} | sent_again


def test_a_ping_or_a_cancel_that_is_refused_says_as_much():
    for last in (Ping(), Cancels([7])):
        calls = acquainted()
        calls.handle(Unsent(last), 0)
        calls.handle(Call(1, 10), 1)
        assert turn(calls, 1)[0] == [Ping()]
        calls.handle(Heartbeat(b"one"), 1.1)
        assert attempts_of(turn(calls, 1.1)[0]) == {1: 0}


def test_what_ends_while_no_broker_is_there_is_not_kept():
    calls = acquainted()
    calls.handle(Unsent(Ping()), 0)
    for id in range(5):
        calls.handle(Call(id, 1), 0)
        calls.handle(Abandon(id), 0)
    calls.handle(Heartbeat(b"one"), 0.1)
    assert turn(calls, 0.1) == ([], {})
    assert calls.next_wake() is None


def test_a_message_taken_back_after_a_restart_was_noticed_is_not_sent_twice():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    requests = calls.wake(0)[0].message
    calls.handle(Heartbeat(b"two"), 0)
    calls.handle(Unsent(requests), 0)
    calls.handle(Heartbeat(b"two"), 0.1)
    assert ids_of(turn(calls, 1)[0]) == [1]


def test_what_ended_meanwhile_is_not_taken_back():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    requests = calls.wake(0)[0].message
    calls.handle(Abandon(1), 0)
    calls.handle(Unsent(requests), 0)
    assert ids_of(turn(calls, 1)[0]) == []


# ---- the broker's life


def test_the_broker_is_pinged_while_something_is_open_and_only_then():
    calls = acquainted()
    calls.handle(Call(1, 1000), 0)
    pings = 0
    for step in range(100):
        calls.handle(Heartbeat(b"one"), step * 0.05)
        pings += turn(calls, step * 0.05)[0].count(Ping())
    assert pings == pytest.approx(5 / TIMES.ping_s, abs=2)
    calls.handle(ok(1), 5)
    assert calls.next_wake() is None
    assert turn(calls, 6)[0] == []


def test_a_new_broker_gets_everything_that_was_sent_once_more():
    calls = acquainted()
    for id in (1, 2, 3):
        calls.handle(Call(id, 10), 0)
    turn(calls, 0)
    calls.handle(ok(2), 0)
    calls.handle(Call(4, 10), 0)
    calls.handle(Heartbeat(b"two"), 1)
    assert attempts_of(turn(calls, 1)[0]) == {1: 1, 3: 1, 4: 0}
    calls.handle(Heartbeat(b"two"), 2)
    assert ids_of(turn(calls, 2)[0]) == []
    calls.handle(Heartbeat(b"three"), 3)
    assert attempts_of(turn(calls, 3)[0]) == {1: 2, 3: 2, 4: 1}


def test_what_is_sent_again_has_only_what_is_left_of_its_time():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Heartbeat(b"two"), 4)
    sent, _ = turn(calls, 4)
    assert sent[0].requests[0].timeout_ms == 6000


def test_a_long_silence_is_an_outage_for_all_that_is_open():
    calls = acquainted()
    calls.handle(Call(1, 100), 0)
    calls.handle(Call(2, 100), 0)
    turn(calls, 0)
    now, settled = 0.0, {}
    while not settled and now < 20:
        now += 0.1
        settled = turn(calls, now)[1]
    assert now == pytest.approx(TIMES.unreachable_s, abs=2 * TIMES.ping_s)
    assert {type(e) for e in settled.values()} == {BrokerUnreachable}
    assert settled[1] is not settled[2]  # each is raised in a thread of its own
    assert len(calls) == 0


def test_what_is_given_up_is_neither_sent_nor_cancelled_when_it_never_left():
    calls = acquainted()
    calls.handle(Call(1, 100), 0)
    turn(calls, 0, connected=False)
    sent, settled = turn(calls, TIMES.unreachable_s)
    assert type(settled[1]) is BrokerUnreachable
    assert sent == []
    assert calls.next_wake() is None


def test_patience_is_short_during_an_outage_and_long_after_it():
    calls = acquainted()

    def silence_until_settled(id, now):
        calls.handle(Call(id, now + 100), now)
        start = now
        while not turn(calls, now)[1]:
            now += 0.05
            assert now < start + 20
        return now - start

    assert silence_until_settled(1, 0) == pytest.approx(TIMES.unreachable_s, abs=0.5)
    assert silence_until_settled(2, 50) == pytest.approx(TIMES.outage_s, abs=0.5)
    calls.handle(Heartbeat(b"one"), 100)
    assert silence_until_settled(3, 200) == pytest.approx(TIMES.unreachable_s, abs=0.5)


def test_a_caller_that_was_idle_does_not_take_its_own_silence_for_an_outage():
    calls = acquainted(now=0)
    calls.handle(Call(1, 2000), 1000)
    assert turn(calls, 1000)[1] == {}


# ---- leaving


def test_leaving_settles_everything_and_says_bye():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Call(2, 10), 0)
    calls.handle(Call(3, 10, query="stats"), 0)
    *settles, bye = calls.leave()
    assert {s.id for s in settles} == {1, 2, 3}
    assert {type(s.outcome) for s in settles} == {BrokerUnreachable}
    assert bye == Send(Bye())
    assert calls.next_wake() is None
    assert calls.wake(100) == []


def test_leaving_with_nothing_open_still_says_bye():
    assert Calls().leave() == [Send(Bye())]


def test_cancels_do_not_outlive_leaving():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    calls.handle(Abandon(1), 0)
    calls.leave()
    assert calls.next_wake() is None


@settings(max_examples=50)
@given(st.lists(st.floats(-1, 5), min_size=1, max_size=10), st.booleans())
def test_next_wake_is_never_later_than_the_first_thing_to_do(deadlines, connected):
    calls = Calls()
    for id, deadline in enumerate(deadlines):
        calls.handle(Call(id, deadline), 0)
    now, settled, turns = 0.0, {}, 0
    while (wake := calls.next_wake()) is not None:
        now = max(now, wake)
        for id, outcome in turn(calls, now, connected)[1].items():
            assert now <= max(deadlines[id], 0) + TIMES.grace_s + 0.001
            settled[id] = outcome
        turns += 1
        assert turns < 1000
    assert set(settled) == set(range(len(deadlines)))


# ---- slots


def lent(id, calls, now=0.0, deadline=10.0):
    calls.handle(Call(id, now + deadline, slots=True), now)
    return turn(calls, now)[0]


def held(id):
    return Replies([Reply(id, 0, b"", {"held": 1})])


def releases(actions):
    return [action.id for action in actions if isinstance(action, Release)]


def reclaimed(messages):
    return [id for m in messages if isinstance(m, Reclaims) for id in m.ids]


def test_a_call_waits_for_the_brokers_name_and_is_then_sent_once():
    calls = Calls()
    calls.handle(Call(2, 10), 0)
    assert ids_of(lent(1, calls)) == []
    assert calls.next_wake() > 0, "it does not spin"
    calls.handle(Heartbeat(b"one"), 0.1)
    assert attempts_of(turn(calls, 0.1)[0]) == {1: 0, 2: 0}


def test_a_reply_gives_the_slots_back_after_it_was_read():
    calls = acquainted()
    lent(1, calls)
    assert [type(action) for action in calls.handle(ok(1), 1)] == [Settle, Release]


def test_a_reply_that_says_held_is_followed_by_released():
    calls = acquainted()
    lent(1, calls)
    assert releases(calls.handle(held(1), 1)) == []
    assert calls.held == 1
    assert releases(calls.handle(Released(b"one", [1, 1, 2]), 2)) == [1]
    assert calls.held == 0 and calls.next_wake() is None


def test_what_was_not_released_is_asked_for_every_second():
    calls = acquainted()
    lent(1, calls)
    calls.handle(held(1), 1)
    assert calls.next_wake() == 2
    assert reclaimed(turn(calls, 2)[0]) == [1]
    assert reclaimed(turn(calls, 2.5)[0]) == []
    assert reclaimed(turn(calls, 3)[0]) == [1]


def test_an_abandoned_call_asks_for_its_slots_in_place_of_a_cancel():
    calls = acquainted()
    lent(1, calls)
    assert calls.handle(Abandon(1), 1) == []
    assert calls.next_wake() == -math.inf
    sent, _ = turn(calls, 1)
    assert sent == [Reclaims([1])]
    assert releases(calls.handle(Released(b"one", [1]), 1)) == [1]


def test_a_call_that_never_left_gives_its_slots_back_at_once():
    calls = acquainted()
    calls.handle(Call(1, 10, slots=True), 0)
    assert releases(calls.handle(Abandon(1), 0)) == [1]


def test_a_reply_that_crossed_the_abandoning_counts():
    calls = acquainted()
    for id in (1, 2):
        lent(id, calls)
        calls.handle(Abandon(id), 1)
    assert releases(calls.handle(ok(1), 1)) == [1]
    assert releases(calls.handle(held(2), 1)) == []


def test_an_expired_call_keeps_its_slots_until_they_are_released():
    calls = acquainted()
    lent(1, calls, deadline=1.0)
    actions = calls.wake(1.0 + TIMES.grace_s)
    assert isinstance(actions[0], Settle) and releases(actions) == []
    assert releases(calls.handle(Released(b"one", [1]), 2)) == [1]


def test_after_a_restart_of_the_broker_slots_are_in_quarantine():
    calls = acquainted()
    lent(1, calls)
    lent(2, calls)
    calls.handle(Abandon(2), 1)
    calls.handle(Heartbeat(b"two"), 5)
    assert releases(calls.handle(Released(b"two", [2]), 5)) == [], "it does not know what the old one gave"
    assert attempts_of(turn(calls, 5)[0]) == {1: 1}
    assert releases(calls.handle(ok(1), 6)) == []
    assert releases(calls.wake(5 + TIMES.orphan_s)) == [2]
    assert releases(calls.wake(6 + TIMES.orphan_s)) == [1]


def test_what_a_new_broker_releases_tells_that_it_is_new():
    calls = acquainted()
    lent(1, calls)
    calls.handle(Abandon(1), 1)
    assert releases(calls.handle(Released(b"two", [1]), 2)) == []
    assert releases(calls.wake(2 + TIMES.orphan_s)) == [1]


# ---- replies in pieces


def piece(id, content=b"p", **meta):
    return Reply(id, 0, content, {"more": 1, **meta})


def streaming(now=0.0, **more):
    """Calls with a request 1 that was sent and takes pieces."""
    calls = acquainted(now)
    calls.handle(Call(1, 10, options={"stream": "true"}, stream=True, **more), now)
    turn(calls, now)
    return calls


def test_pieces_come_before_the_outcome_in_their_order():
    calls, last = streaming(), Reply(1, 0, b"", {})
    replies = [piece(1, b"a"), piece(1, b"b"), last, piece(1, b"late")]
    assert calls.handle(Replies(replies[:1]), 0.1) == [Advance(1, replies[0])]
    assert calls.handle(Replies(replies[1:]), 0.1) == [Advance(1, replies[1]), Settle(1, last)]
    assert len(calls) == 0


def test_pieces_that_nobody_asked_for_are_dropped():
    calls = acquainted()
    calls.handle(Call(1, 10), 0)
    turn(calls, 0)
    assert calls.handle(Replies([piece(1), piece(2)]), 0.1) == []
    assert len(calls) == 1


def test_an_error_is_the_last_whatever_it_says():
    (settle,) = streaming().handle(Replies([Reply(1, QueueFull.code, "full", {"more": 1})]), 0.1)
    assert type(settle.outcome) is QueueFull


def test_a_request_that_takes_pieces_is_not_sent_before_the_broker_is_known():
    calls = Calls()
    calls.handle(Call(1, 10, stream=True), 0)
    assert [type(m) for m in turn(calls, 0)[0]] == [Ping]
    calls.handle(Heartbeat(b"one"), 0.1)
    assert attempts_of(turn(calls, 0.1)[0]) == {1: 0}


def test_a_new_broker_is_sent_the_request_of_which_no_piece_has_come():
    calls = streaming()
    calls.handle(Heartbeat(b"two"), 0.1)
    assert attempts_of(turn(calls, 0.1)[0]) == {1: 1}


@pytest.mark.parametrize("slots", [False, True])
def test_a_new_broker_fails_the_request_of_which_a_piece_has_come(slots):
    calls = streaming(slots=slots)
    calls.handle(Replies([piece(1)]), 0.1)
    (settle,) = calls.handle(Heartbeat(b"two"), 0.2)
    assert type(settle.outcome) is WorkerLost
    assert turn(calls, 0.2)[0] == [] and len(calls) == 0
    assert calls.held == slots, "a worker of the old broker may still touch them"


def test_what_is_left_of_an_attempt_that_is_over_is_dropped():
    calls = streaming()
    calls.handle(Heartbeat(b"two"), 0.1)
    turn(calls, 0.1)
    assert calls.handle(Replies([piece(1, b"old"), Reply(1, 0, b"old", {})]), 0.2) == []
    new = [piece(1, b"new", attempt=1), Reply(1, 0, b"", {"attempt": 1})]
    assert calls.handle(Replies(new), 0.3) == [Advance(1, new[0]), Settle(1, new[1])]


def test_the_deadline_is_for_the_whole_reply():
    calls = streaming()
    for tenths in range(1, 105):
        calls.handle(Replies([piece(1)]), tenths / 10)
        assert turn(calls, tenths / 10)[1] == {}
    _, settled = turn(calls, 10 + TIMES.grace_s)
    assert type(settled[1]) is DeadlineExceeded
    assert calls.handle(Replies([piece(1)]), 10.6) == []


def test_a_request_that_was_begun_can_be_abandoned():
    calls = streaming()
    calls.handle(Replies([piece(1)]), 0.1)
    calls.handle(Abandon(1), 0.1)
    assert Cancels([1]) in turn(calls, 0.1)[0]
    assert calls.handle(Replies([piece(1)]), 0.2) == []


# ---- everything at once


class AnyLife(RuleBasedStateMachine):
    """Callers that start and abandon, a broker that dies, returns, answers at will, and a broken line."""

    def __init__(self):
        super().__init__()
        self.calls = Calls()
        self.now = 0.0
        self.connected = True
        self.is_met = False  # it said who it is, and no message was refused since
        self.ids = 0
        self.deadlines = {}
        self.waiting = set()
        self.delivered = {}
        self.broker = b"one"
        self.lent = set()  # calls with slots that are not back
        self.wanted = set()  # those that the broker was asked for
        self.streams = set()  # calls that take pieces
        self.begun = {}  # those that got one: of which attempt

    def settle(self, id, outcome):
        assert id in self.waiting, "settled twice, or after it was abandoned"
        self.waiting.remove(id)

    def send(self, message):
        assert decode(encode(message)) == message
        if not self.connected:
            self.refuse(message)
            return
        assert self.is_met or not isinstance(message, Requests | Query), "asked of who knows whom"
        match message:
            case Requests(requests):
                ids = [r.id for r in requests]
                assert len(set(ids)) == len(ids)
                for r in requests:
                    assert r.id in self.waiting
                    assert r.attempt >= self.delivered.get(r.id, 0)
                    assert r.id not in self.begun, "a reply that has begun is asked for again"
                    self.delivered[r.id] = r.attempt
            case Query(id):
                assert id in self.waiting
                self.delivered[id] = 0
            case Cancels(ids):
                assert set(ids) <= set(self.delivered)
                assert not set(ids) & self.waiting
            case Reclaims(ids):
                assert set(ids) <= self.lent - self.waiting
                self.wanted |= set(ids)

    def refuse(self, message):
        self.is_met = False
        self.calls.handle(Unsent(message), self.now)

    def do(self, actions):
        refused = self.calls.refused
        for action in actions:
            match action:
                case Send(message) if self.calls.refused != refused:
                    self.refuse(message)
                case Settle(id, outcome):
                    self.settle(id, outcome)
                case Advance(id, reply):
                    assert id in self.waiting & self.streams, "a piece after the end"
                    assert self.begun.setdefault(id, reply.meta["attempt"]) == reply.meta["attempt"]
                case Release(id):
                    assert id in self.lent, "released twice, or it lent nothing"
                    assert id not in self.waiting, "released before it was settled"
                    self.lent.remove(id)
                case Send(message):
                    self.send(message)

    @rule(timeout=st.floats(-0.1, 30), question=st.booleans(), slots=st.booleans(), stream=st.booleans())
    def start(self, timeout, question, slots, stream):
        self.ids += 1
        self.waiting.add(self.ids)
        self.deadlines[self.ids] = self.now + timeout
        query, deadline = "stats" if question else "", self.now + timeout
        call = Call(self.ids, deadline, query=query, slots=slots > question, stream=stream > question)
        if call.stream:
            self.streams.add(self.ids)
        if call.slots:
            self.lent.add(self.ids)
        self.do(self.calls.handle(call, self.now))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def abandon(self, data):
        id = data.draw(st.integers(1, self.ids))
        self.waiting.discard(id)
        self.do(self.calls.handle(Abandon(id), self.now))

    @precondition(lambda self: self.connected and self.delivered)
    @rule(data=st.data(), code=st.sampled_from([0, 20, 200]), held=st.booleans())
    def reply(self, data, code, held):
        id = data.draw(st.sampled_from(sorted(self.delivered)))
        meta = {"held": 1, "attempt": self.delivered[id]} if held else {"attempt": self.delivered[id]}
        self.do(self.calls.handle(Replies([Reply(id, code, b"", meta)] * 2), self.now))
        assert id not in self.waiting or id in self.streams, "only of an attempt that is over"

    @precondition(lambda self: self.connected and self.delivered)
    @rule(data=st.data())
    def piece(self, data):
        id = data.draw(st.sampled_from(sorted(self.delivered)))
        meta = {"more": 1, "attempt": data.draw(st.integers(0, self.delivered[id]))}
        is_waiting = id in self.waiting
        self.do(self.calls.handle(Replies([Reply(id, 0, b"", meta)] * 2), self.now))
        assert (id in self.waiting) == is_waiting

    @precondition(lambda self: self.connected and self.delivered)
    @rule(data=st.data())
    def answer(self, data):
        id = data.draw(st.sampled_from(sorted(self.delivered)))
        self.do(self.calls.handle(Answer(id, {}), self.now))

    @rule(broker=st.sampled_from([b"one", b"two", b"three"]))
    def heartbeat(self, broker):
        self.broker = broker
        self.is_met = True
        self.do(self.calls.handle(Heartbeat(broker), self.now))

    @rule()
    def release(self):
        ids, self.wanted = sorted(self.wanted), set()
        self.is_met = True
        self.do(self.calls.handle(Released(self.broker, ids), self.now))

    @rule(connected=st.booleans())
    def line(self, connected):
        self.connected = connected

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0, 11.0]))
    def turn(self, seconds):
        self.now += seconds
        self.do(self.calls.wake(self.now))
        late = {i for i in self.waiting if self.now > self.deadlines[i] + TIMES.grace_s + 0.001}
        assert not late

    @invariant()
    def open_calls_are_those_that_wait(self):
        assert len(self.calls) == len(self.waiting)
        assert self.calls.next_wake() is not None or not (self.waiting or self.calls.held)

    def teardown(self):
        """Left alone, everything ends."""
        for _ in range(100_000):
            wake = self.calls.next_wake()
            if wake is None:
                break
            self.now = max(self.now, wake)
            self.turn(0.0)
            if not self.waiting:
                self.connected = True
                self.release()
        assert not self.waiting
        assert not self.lent and not self.calls.held
        assert len(self.calls) == 0


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
