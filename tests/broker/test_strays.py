"""headway_broker.strays: what was recorded for requests that are over is not lost."""

from __future__ import annotations

from typing import Any

from headway.messages import OK, BatchReply, Result
from headway.torchserve.metrics import COUNTER, META, Record, packed, unpacked
from headway_broker import strays
from headway_broker.strays import ROWS_MAX, VERSIONS_MAX, Strays
from tests.broker.bench import Bench, spec

KEY = ("m", "1")


def record(value: float, request: str = "") -> Record:
    return Record(COUNTER, "n", "Count", value, ("Level", "Model"), request)


def meta(*records: Record) -> dict[str, Any]:
    return {META: packed(records)}


def joined(*metas: dict[str, Any]) -> list[Record]:
    kept = Strays()
    for one in metas[:-1]:
        kept.keep(KEY, one)
    return unpacked(kept.join(KEY, metas[-1]).get(META))


def test_both_sides_call_it_the_same() -> None:
    assert strays.META == META


def test_what_was_kept_comes_before_what_is_new_each_for_its_own_requests() -> None:
    records = [record(1, "a"), record(2, "a"), record(3), record(4, "b"), record(5)]
    assert joined(meta(*records[:2]), meta(*records[2:4]), meta(*records[4:])) == records
    assert joined(meta(*records), {}) == records
    assert joined({"status": 200}, meta(records[0])) == records[:1]


def test_it_is_joined_once_and_with_its_own_version_alone() -> None:
    kept = Strays()
    kept.keep(KEY, meta(record(1)))
    assert kept.join(("m", "2"), {"k": 1}) == {"k": 1}
    assert kept.join(KEY, {"k": 1}).keys() == {"k", META}
    assert kept.join(KEY, {"k": 1}) == {"k": 1} and not kept.kept


def test_what_is_kept_is_bounded() -> None:
    kept = Strays()
    for value in range(ROWS_MAX + 5):
        kept.keep(KEY, meta(record(value, "id")))
    assert [one.value for one in unpacked(kept.kept[KEY])][:: ROWS_MAX - 1] == [5.0, ROWS_MAX + 4.0]
    for version in range(2 * VERSIONS_MAX):
        kept.keep(("m", f"v{version}"), meta(record(1)))
    assert len(kept.kept) <= VERSIONS_MAX


def test_rows_that_are_none_harm_nobody() -> None:
    assert joined({META: "no list"}, {META: [7]}, meta(record(1))) == [record(1)]


def test_what_a_cancelled_request_recorded_goes_with_the_next_reply_that_takes_such() -> None:
    bench = Bench(spec(batch_size_max=1))
    bench.host("w")
    door = {"headers": {}}
    replies = []
    for id, options in enumerate((door, {}, door), 1):
        bench.ask(id, options=options)
        [(_, batch)] = bench.wake().batches
        if id == 1:
            bench.cancel(1)
        recorded = meta(record(id)) if options else {}
        bench.result("w", Result(batch.id, 10, [BatchReply(OK, b"", recorded)]))
        replies.append(bench.wake().replies())
    assert replies[0] == {} and META not in replies[1][2].meta
    assert [one.value for one in unpacked(replies[2][3].meta[META])] == [1.0, 3.0]
