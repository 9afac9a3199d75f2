"""The broker's parts, and how a version comes and goes."""

from __future__ import annotations

import pytest

from headway.messages import Join
from headway_broker.board import Board
from headway_broker.catalog import Catalog
from headway_broker.workers import Flight, Worker
from tests.broker.bench import copy, open_request, spec

ONE, TWO = ("m", "1"), ("m", "2")


def board_of(*versions: str) -> Board:
    return Board(Catalog([spec(version=v) for v in versions]))


def host(board: Board, name: str, *versions: str, state: str = "ready") -> Worker:
    worker = Worker(name.encode(), Join(name, "host", 1, "cpu", []), 0.0)
    board.roster.add(worker)
    board.roster.set_copies(worker, [copy(version=v, state=state) for v in versions], 0.0)
    return worker


def retire(board: Board, version: str) -> None:
    board.catalog.unregister("m", version)
    board.sync()
    board.check()


def test_a_new_version_gets_its_parts_with_as_many_copies_as_it_may_have() -> None:
    board = board_of("1")
    board.catalog.look([spec(version="1"), spec(version="2", copies=3)], {})
    assert board.sync() == []
    assert (board.copies[ONE], board.copies[TWO]) == (1, 3)
    board.check()


def test_a_version_retires_until_nothing_waits_and_no_worker_has_it() -> None:
    board = board_of("1", "2")
    worker, request = host(board, "w", "1"), open_request(key=ONE)
    board.queues[ONE].add(request)
    retire(board, "1")
    assert board.purge() == [] and board.retiring == {ONE}
    board.queues[ONE].remove(request)
    assert board.purge() == [], "a worker has it"
    board.roster.set_copies(worker, [copy(version="1", state="gone")], 1.0)
    assert board.purge() == [ONE]
    board.check()


def test_a_version_does_not_go_while_a_batch_of_it_runs() -> None:
    board = board_of("1", "2")
    worker = host(board, "w")
    board.roster.start(worker, Flight(1, ONE, [open_request()], 10.0, 10.0, False), 0.0)
    retire(board, "1")
    assert board.purge() == []
    board.roster.finish(worker, 1, 1.0)
    assert board.purge() == [ONE]


def test_a_retiring_version_keeps_the_copies_that_somebody_waits_for() -> None:
    board = board_of("1", "2")
    host(board, "a", "1")
    host(board, "b", "1", state="loading")
    retire(board, "1")
    assert board.awaited() == {}
    request = open_request(key=ONE)
    board.queues[ONE].add(request)
    assert board.awaited() == {ONE: 2}


def test_of_a_retiring_version_without_copies_one_is_loaded_for_those_who_wait() -> None:
    board = board_of("1", "2")
    host(board, "a", "1", state="failed")
    board.queues[ONE].add(open_request(key=ONE))
    retire(board, "1")
    assert board.awaited() == {ONE: 1}


def test_copies_in_workers_that_go_do_not_stay() -> None:
    board = board_of("1")
    leaving, draining = host(board, "a", "1"), host(board, "b", "1")
    host(board, "c", "1", state="loading")
    board.roster.leave(leaving)
    draining.draining = True
    assert (board.ready(ONE), board.loading(ONE), board.staying(ONE)) == (2, 1, 1)
    assert board.staying(ONE, ("ready",)) == 0


@pytest.mark.parametrize("has_changed", [False, True])
def test_a_version_that_comes_back_is_renewed_if_it_has_changed(has_changed: bool) -> None:
    board = board_of("1", "2")
    retire(board, "1")
    again = spec(version="1", batch_size_max=7 if has_changed else 1)
    board.catalog.look([again, spec(version="2")], {})
    board.catalog.register("m", "1")
    assert board.sync() == ([ONE] if has_changed else [])
    assert board.queues[ONE].spec.batch_size_max == again.batch_size_max and not board.retiring
    board.check()


def test_parts_that_are_left_over_are_noticed() -> None:
    board = board_of("1")
    board.copies[TWO] = 1
    with pytest.raises(AssertionError, match="left over"):
        board.check()
