"""A running batch: turn by turn, with a model that the test plays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headway.errors import Cancelled, DeadlineExceeded, InvalidInput, ModelError
from headway.messages import Result
from headway_worker import replies
from headway_worker.abreast import BEAT_S
from headway_worker.continuous import Continuous, Step
from headway_worker.faults import DeviceFault
from headway_worker.request import ModelRequest
from headway_worker.tracks import Share
from tests.worker.abreast_bench import AbreastBench, text
from tests.worker.bench import floats, request


class Counting(AbreastBench):
    """The model counts each request's turns, and ends it after as many as its body says. `seen`: who rode in
    each turn, by body."""

    def __init__(self, size: int = 2) -> None:
        super().__init__(batch_size_max=size, continuous=True)
        self.seen: list[list[bytes]] = []
        self.error: BaseException | None = None
        self.running = Continuous(self, size, self.reports.append, self.clock)

    def step(self, requests: Sequence[ModelRequest]) -> list[Step]:
        self.seen.append([request.body for request in requests])
        self.now += 0.1
        if self.error:
            raise self.error
        made: list[Step] = []
        for rider in requests:
            rider.state["turns"] = rider.state.get("turns", 0) + 1
            made.append((text(b"%d;" % rider.state["turns"]), rider.state["turns"] < int(rider.body)))
        return made

    def rides(self, request: ModelRequest) -> bool:
        return request.body != b"asks"

    def answer(self, requests: Sequence[ModelRequest]) -> list[Share]:
        self.now += 0.2
        if self.error:
            raise self.error
        return [text(b"itself")]

    def join(self, batch: int, body: bytes, **keys: bool) -> None:
        self.running.join(self.passage(batch, body, **keys))

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.running.turn()


def test_one_joins_between_two_turns_and_each_leaves_after_its_own_last() -> None:
    bench = Counting()
    bench.join(1, b"3")
    bench.turns(1)
    bench.join(2, b"1")
    bench.turns(2)
    assert bench.seen == [[b"3"], [b"3", b"1"], [b"3"]]
    assert bench.results == {2: [b"1;"], 1: [b"1;2;3;"]}
    assert len(bench.running) == 0


def test_a_caller_that_takes_pieces_has_each_turn_at_once() -> None:
    bench = Counting()
    bench.join(1, b"3", streams=True)
    bench.turns(2)
    assert bench.pieces == [(1, b"1;"), (1, b"2;")]
    bench.turns(1)
    assert bench.results == {1: [b"3;"]}, "what is left"


def test_more_than_there_is_room_for_wait() -> None:
    bench = Counting(size=2)
    for batch in (1, 2, 3):
        bench.join(batch, b"2")
    bench.turns(4)
    assert [len(riders) for riders in bench.seen] == [2, 2, 1, 1]


def test_one_that_is_dropped_is_not_in_the_next_turn() -> None:
    bench = Counting()
    bench.join(1, b"9")
    bench.join(2, b"8")
    bench.turns(1)
    bench.running.drop(1)
    bench.running.drop(77)  # which ended before
    bench.turns(1)
    assert bench.seen == [[b"9", b"8"], [b"8"]]
    assert list(bench.results) == [1]
    [reply] = next(r.replies for r in bench.reports if isinstance(r, Result))
    assert reply.code == Cancelled.code


def test_without_riders_the_model_is_not_called() -> None:
    bench = Counting()
    bench.join(1, b"9")
    bench.running.drop(1)
    bench.turns(2)
    assert not bench.seen


def test_a_turn_that_raises_fails_all_that_ride_and_the_next_begin_anew() -> None:
    bench = Counting()
    bench.join(1, b"9", streams=True)
    bench.join(2, b"8")
    bench.join(3, b"1")
    bench.turns(1)
    bench.error = ValueError("told to")
    bench.turns(1)
    bench.error = None
    assert {batch: ["told to" in said for said in found] for batch, found in bench.results.items()} == {
        1: [True],
        2: [True],
    }
    bench.turns(1)
    assert bench.results[3] == [b"1;"], "it waited, and was in no turn that raised"


def test_a_fault_of_the_device_ends_it_without_an_answer() -> None:
    bench = Counting()
    bench.join(1, b"9")
    bench.error = DeviceFault("broken")
    with pytest.raises(DeviceFault):
        bench.turns(1)
    assert not bench.results


def test_a_piece_that_is_too_large_is_its_requests_error_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Counting()
    bench.join(1, b"9", streams=True)
    bench.join(2, b"2")
    monkeypatch.setattr(replies, "PIECE_BYTES_MAX", 1)
    bench.turns(2)
    assert "is over the limit" in bench.results[1][0]
    assert bench.results[2] == [b"1;2;"]


def test_what_came_too_late_or_is_no_body_rides_not_at_all() -> None:
    bench = Counting()
    bench.running.join(bench.passage(1, b"3", late_s=100.0))
    bench.running.join(bench.prepared(2, [request(x=floats(1, 2))]))
    assert len(bench.running) == 0
    codes = {r.batch: [reply.code for reply in r.replies] for r in bench.reports if isinstance(r, Result)}
    assert codes == {1: [DeadlineExceeded.code], 2: [InvalidInput.code]}


def test_it_says_now_and_then_that_it_goes_on_for_the_oldest_that_rides() -> None:
    bench = Counting()
    bench.join(1, b"99")
    bench.join(2, b"2")
    bench.turns(round(2.5 * BEAT_S / 0.1))
    assert bench.signs_of_life == [1, 1, 1]


def test_a_model_that_answers_too_few_fails_them() -> None:
    bench = Counting()
    bench.step = lambda requests: []  # type: ignore[method-assign]
    bench.join(1, b"1")
    bench.turns(1)
    [result] = [report for report in bench.reports if isinstance(report, Result)]
    assert result.replies[0].code == ModelError.code
    assert result.replies[0].content == "the backend answered 0 requests of 1"


def test_one_that_does_not_ride_is_answered_when_nobody_rides_before_those_who_came_after_it() -> None:
    bench = Counting()
    for batch, body in enumerate((b"2", b"asks", b"1", b"asks"), 1):
        bench.join(batch, body)
    bench.turns(3)
    assert (bench.seen, list(bench.results)) == ([[b"2"], [b"2"]], [1, 2])
    bench.turns(1)
    bench.error = ValueError("told to")
    bench.turns(1)
    assert bench.results == {1: [b"1;2;"], 2: [b"itself"], 3: [b"1;"], 4: ["ValueError: told to"]}


def test_the_time_in_the_model_is_that_of_its_turns() -> None:
    bench = Counting()
    bench.join(1, b"3")
    bench.turns(3)
    [result] = [report for report in bench.reports if isinstance(report, Result)]
    assert result.compute_us == 300_000
