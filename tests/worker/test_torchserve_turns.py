"""Backend `torchserve`: archives with a running batch or with coroutines, in a real runner's thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.body import Body, pack_body
from headway.messages import Batch, BatchReply, BatchRequest, Copy, Load, Piece, Result, Unload
from headway.pieces import NOBODY, STREAM, TRUE
from headway_worker.orders import Drop, Run
from tests.worker.bench import DOUBLE, Bench, X, Y, floats, request, tensors_of

WAIT_S = 20.0
SOURCES = Path(__file__).parents[1] / "torchserve" / "sources"


class Running:
    """A runner in its thread."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.thread = threading.Thread(target=bench.runner.run, daemon=True)
        self.thread.start()

    def archive(self, source: str, toml: str, handler: str = "") -> None:
        """Version 1 of "m": a plain folder with one of the differential set's handlers, or with this one."""
        folder = self.bench.write(f'file = "archive"\n{toml}', backend="torchserve") / "archive"
        (folder / "MAR-INF").mkdir(parents=True)
        manifest = {"model": {"modelName": "m", "handler": "handler.py", "modelVersion": "1"}}
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        handler = handler or (SOURCES / source / "handler.py").read_text()
        (folder / "handler.py").write_text(handler)
        self.load()

    def load(self, version: str = "1") -> Copy:
        count = len(self.bench.reports)
        self.put(Load("m", version, str(self.bench.store / "m" / version)))
        self.until(lambda: len(self.bench.reports) > count)
        return self.state("ready", "failed")

    def state(self, *states: str) -> Copy:
        return self.until(lambda: self._last_copy(states))

    def _last_copy(self, states: tuple[str, ...]) -> Copy | None:
        copies = [report for report in self.bench.reports if isinstance(report, Copy)]
        return copies[-1] if copies and copies[-1].state in states else None

    def put(self, order: Any) -> None:
        self.bench.runner.put(order)

    def ask(self, batch: int, said: Any, streams: bool = False, **options: Any) -> None:
        packed, more = pack_body(Body(json.dumps(said).encode(), "application/json"))
        options |= {STREAM: TRUE} if streams else {}
        asked = [BatchRequest(60_000, 0, {**more, **options}, packed)]
        self.put(Run(Batch(batch, "m", "1", 60_000, asked), self.bench.now))

    def replies(self) -> dict[int, BatchReply]:
        return {r.batch: r.replies[0] for r in self.bench.reports if isinstance(r, Result)}

    def reply(self, batch: int) -> BatchReply:
        self.until(lambda: batch in self.replies())
        return self.replies()[batch]

    def text(self, batch: int) -> str:
        reply = self.reply(batch)
        assert reply.code == 0, reply.content
        assert isinstance(reply.content, bytes)
        return reply.content.decode()

    def pieces(self, batch: int) -> list[Any]:
        reports = [r for r in self.bench.reports if isinstance(r, Piece) and r.place != NOBODY]
        return [piece.content for piece in reports if piece.batch == batch]

    def until(self, true: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while not (found := true()):
            assert time.monotonic() < end, self.bench.reports
            assert self.thread.is_alive()
            time.sleep(0.001)
        return found


@pytest.fixture
def running(bench: Bench) -> Iterator[Running]:
    made = Running(bench)
    yield made
    made.put(Unload("m", "1"))
    made.state("gone")
    bench.runner.stop()
    made.thread.join(WAIT_S)
    assert not [thread for thread in threading.enumerate() if thread.name == "headway-coroutines"]


CONTINUOUS, ASYNC = "continuous = true\nbatch_size_max = 2\n", "in_flight_max = 10\n"


def test_one_joins_the_running_batch_and_is_through_before_the_first(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 10_000}, streams=True)
    running.until(lambda: len(running.pieces(1)) > 2)
    running.ask(2, {"n": 3, "say": "width"})
    assert running.text(2) == "2;2;2;", "they shared its turns"
    running.put(Drop(1))
    running.reply(1)
    count = len(running.pieces(1))
    running.ask(3, {"n": 2, "say": "width"})
    assert running.text(3) == "1;1;", "it has left"
    assert len(running.pieces(1)) == count


def test_the_payload_comes_once_and_headers_always(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 2, "say": "inputs"}, headers={"X-Mark": "m"})
    assert running.text(1) == "new ['body'] m;known [] m;"


def test_each_piece_says_that_more_comes_and_the_last_that_none_does(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 2}, streams=True)
    said = running.reply(1).meta["headers"]["ts_stream_next"]
    pieces = [report for report in running.bench.reports if isinstance(report, Piece)]
    [piece] = [piece for piece in pieces if piece.place != NOBODY]
    assert (piece.meta["headers"]["ts_stream_next"], said) == ("true", "false")


def test_a_verdict_of_none_ends_it(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 9, "verdict": "none"})
    assert running.text(1) == "turn 1;"
    assert "headers" not in running.reply(1).meta


def test_a_handler_that_raises_fails_all_that_ride_with_what_clients_know(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 10_000}, streams=True)
    running.until(lambda: running.pieces(1))
    running.ask(2, {"n": 9, "fail": 2})
    for batch in (1, 2):
        assert running.reply(batch).meta == {"status": 503, "message": "Prediction failed"}
    running.ask(3, {"n": 1})
    assert running.text(3) == "turn 1;"


def test_a_question_about_the_model_is_a_call_of_its_own(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 30}, streams=True)
    running.ask(2, {}, describe=True)
    running.ask(3, {"n": 2, "say": "width"})
    assert running.text(3) == "1;1;"
    assert running.reply(2).meta["status"] == 503, "this handler cannot be asked"
    assert running.text(1) == "turn 30;"


def test_other_models_get_their_turn_between_two_turns(running: Running) -> None:
    running.bench.write_version("2", X + Y, model=DOUBLE)
    running.load("2")
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 10_000}, streams=True)
    running.until(lambda: running.pieces(1))
    other = Batch(2, "m", "2", 60_000, [request(x=floats(1, 2))])
    running.put(Run(other, running.bench.now))
    assert tensors_of(running.reply(2))["y"].tolist() == [2, 4]
    assert 1 not in running.replies()
    running.put(Drop(1))


def test_an_unload_waits_for_who_rides_and_what_comes_behind_it_is_refused(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 50}, streams=True)
    running.put(Unload("m", "1"))
    running.ask(2, {"n": 1})
    assert "is not loaded here" in str(running.reply(2).content)
    assert len(running.pieces(1)) == 49
    kinds = [r.batch if isinstance(r, Result) else r.state for r in running.bench.reports[-3:]]  # type: ignore[union-attr]
    assert kinds == [1, "gone", 2]


def test_one_that_is_dropped_while_it_waits_behind_a_load_is_not_run(running: Running) -> None:
    running.archive("turns", CONTINUOUS)
    running.ask(1, {"n": 20, "sleep_ms": 10}, streams=True)
    running.until(lambda: running.pieces(1))
    running.put(Unload("m", "2"))
    running.ask(2, {"n": 1})
    running.put(Drop(2))
    assert running.reply(2).content == "nobody waits for it"


def test_coroutines_run_beside_one_another(running: Running) -> None:
    running.archive("later", ASYNC)
    running.ask(1, {"wait": "bell", "say": "first"})
    running.ask(2, {"n": 2}, streams=True)
    assert running.text(2) == "the end"
    assert running.pieces(2) == [b"part 0;", b"part 1;"]
    assert 1 not in running.replies()
    running.ask(3, {"ring": "bell"})
    assert running.text(1) == "first"


def test_a_coroutine_that_fails_fails_alone(running: Running) -> None:
    running.archive("later", ASYNC)
    running.ask(1, {"wait": "bell"})
    running.ask(2, {"fail": True})
    running.ask(3, {"code": 404})
    assert running.reply(2).meta == {"status": 503, "message": "Prediction failed"}
    assert running.reply(3).meta == {"status": 404, "message": "told to"}
    running.ask(4, {"ring": "bell", "status": 202})
    assert running.reply(4).meta["status"] == 202
    assert running.text(1) == "the end"


def test_what_one_call_says_of_its_reply_is_not_said_of_anothers(running: Running) -> None:
    running.archive("later", ASYNC)
    running.ask(1, {"status": 202, "wait": "bell"})
    running.ask(2, {"ring": "bell"})
    assert "status" not in running.reply(2).meta
    assert running.reply(1).meta["status"] == 202


def test_an_unload_waits_for_coroutines_and_a_drop_ends_them(running: Running) -> None:
    running.archive("later", ASYNC)
    running.ask(1, {"wait": "never"})
    running.put(Unload("m", "1"))
    time.sleep(0.05)
    assert 1 not in running.replies()
    running.put(Drop(1))
    running.state("gone")
    assert running.reply(1).content == "nobody waits for it"


def test_coroutines_import_their_own_modules_whenever_they_go_on(running: Running) -> None:
    text = """
import asyncio
async def handle(data, context):
    await asyncio.sleep(0.02)
    import helper
    return [f"{helper.NAME} {context.request_ids[0]}"]
"""
    running.archive("", ASYNC, text)
    (running.bench.store / "m" / "1" / "archive" / "helper.py").write_text("NAME = 'mine'")
    running.ask(1, {}, request_id="a")
    running.ask(2, {}, request_id="b")
    assert (running.text(1), running.text(2)) == ("mine a", "mine b")


def test_a_backend_without_turns_is_refused_by_name(running: Running) -> None:
    for version, keys, key in (("1", CONTINUOUS, "continuous"), ("2", ASYNC, "in_flight_max")):
        running.bench.write_version(version, keys + X + Y, model=DOUBLE)
        failed = running.load(version)
        assert (failed.version, f"{key}: backend 'python' runs one batch" in failed.detail) == (version, True)
