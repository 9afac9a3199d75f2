"""How many copies each version shall have: the board read for the scaler."""

from __future__ import annotations

import pytest

from headway.messages import Join
from headway_broker.board import Board
from headway_broker.catalog import Catalog, Key
from headway_broker.demand import Demand
from headway_broker.workers import Flight, Worker
from tests.broker.bench import copy, open_request, spec

KEY = ("m", "1")


def board_of(**keys: int) -> Board:
    return Board(Catalog([spec(**keys)]))


def host(board: Board, name: str = "w") -> Worker:
    worker = Worker(name.encode(), Join(name, "host", 1, "cpu", []), 0.0)
    board.roster.add(worker)
    board.roster.set_copies(worker, [copy()], 0.0)
    return worker


def looked(demand: Demand, board: Board, now: float) -> dict[Key, int]:
    """A look, whose wishes come true."""
    wishes = list(demand.wishes(now))
    board.copies.update({key: copies for key, copies, _ in wishes})
    return {key: copies for key, copies, _ in wishes}


def test_what_was_ordered_is_wished_whatever_the_load() -> None:
    board = board_of(copies=3)
    assert list(Demand(board).wishes(0.0)) == [(KEY, 3, "as ordered")]


def test_more_copies_are_wished_when_requests_wait_in_two_looks() -> None:
    board = board_of(copies=1, copies_min=1, copies_max=4)
    demand = Demand(board)
    host(board)
    board.queues[KEY].add(open_request(arrived=0.0))
    assert looked(demand, board, 1.0) == {KEY: 1}
    assert looked(demand, board, 2.0) == {KEY: 2}


def test_a_batch_that_is_held_back_on_purpose_does_not_wait() -> None:
    board = board_of(copies=1, copies_min=1, copies_max=4, batch_delay_ms=5000)
    demand = Demand(board)
    host(board)
    board.queues[KEY].add(open_request(arrived=0.0))
    assert [looked(demand, board, float(t))[KEY] for t in range(1, 5)] == [1, 1, 1, 1]


def test_a_worker_is_busy_for_the_part_of_the_time_in_which_it_had_batches() -> None:
    board = board_of(copies=1, copies_min=1, copies_max=4)
    demand, worker = Demand(board), host(board)
    looked(demand, board, 10.0)
    board.roster.start(worker, Flight(1, KEY, [open_request()], 10.0, 99.0, False), 10.25)
    board.roster.finish(worker, 1, 10.75)
    looked(demand, board, 11.0)
    assert demand.busy(worker) == pytest.approx(0.5)
    board.roster.start(worker, Flight(2, KEY, [open_request()], 10.0, 99.0, False), 11.0)
    looked(demand, board, 12.0)
    assert demand.busy(worker) == pytest.approx(1.0), "a batch that still runs counts"


def test_workers_that_are_always_busy_with_it_are_joined_by_more() -> None:
    board = board_of(copies=1, copies_min=1, copies_max=4)
    demand, worker = Demand(board), host(board)
    board.roster.start(worker, Flight(1, KEY, [open_request()], 99.0, 99.0, False), 0.0)
    wished = []
    for now in range(1, 8):
        board.stats[KEY].busy_s = float(now)
        wished.append(looked(demand, board, float(now))[KEY])
    assert wished[0] == 1 and wished[-1] > 1


def test_a_version_that_nobody_asks_for_goes_to_none_and_one_that_was_asked_does_not() -> None:
    board = board_of(copies=1, copies_min=0, copies_max=2)
    demand = Demand(board)
    host(board)
    for now in range(0, 290, 10):
        assert looked(demand, board, float(now)) == {KEY: 1}
    board.stats[KEY].outcomes["Cancelled"] += 1
    assert looked(demand, board, 295.0) == {KEY: 1}
    assert looked(demand, board, 590.0) == {KEY: 1}
    assert looked(demand, board, 600.0) == {KEY: 0}


def test_orders_bind_between_looks_without_being_one() -> None:
    board = board_of(copies=2, copies_min=1, copies_max=4)
    demand = Demand(board)
    assert list(demand.bounds()) == []
    board.catalog.set_limits(KEY, 3, 4)
    assert list(demand.bounds()) == [(KEY, 3, "at least 3 are ordered")]
    board.catalog.set_limits(KEY, 0, 1)
    assert list(demand.bounds()) == [(KEY, 1, "at most 1 are ordered")]
    assert not demand._marks


def test_what_is_gone_is_forgotten() -> None:
    board = board_of(copies=1, copies_min=0, copies_max=2)
    demand = Demand(board)
    looked(demand, board, 0.0)
    board.catalog.unregister("m")
    assert looked(demand, board, 1.0) == {}
    assert not demand._marks and not demand._scaler._pasts


def fly(worker: Worker, count: int) -> None:
    """The worker runs so many requests beside one another."""
    for id in range(count):
        request = open_request(id + 1)
        worker.start_abreast(Flight(id, KEY, [request], 60.0, request.deadline, False, abreast=True), 0.0)


@pytest.mark.parametrize(("running", "copies"), [(2, 1), (8, 2)])
def test_a_running_batch_is_as_busy_as_it_is_full(running: int, copies: int) -> None:
    board = board_of(copies=1, copies_min=1, copies_max=4, batch_size_max=8, continuous=True)
    demand, worker = Demand(board), host(board)
    fly(worker, running)
    assert [looked(demand, board, float(t))[KEY] for t in range(1, 30)][-1] == copies


def test_a_version_whose_only_request_runs_for_an_hour_is_not_idle() -> None:
    board = board_of(copies=1, copies_min=0, copies_max=1, batch_size_max=8, continuous=True)
    demand, worker = Demand(board), host(board)
    fly(worker, 1)
    assert {looked(demand, board, 60.0 * t)[KEY] for t in range(1, 60)} == {1}
