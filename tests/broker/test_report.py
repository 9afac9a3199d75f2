"""What the broker says of itself."""

from __future__ import annotations

from typing import Any

from headway.messages import KINDS, Answer, Copy, Join, Query
from headway.models import TensorSpec
from headway.wire import decode, encode
from headway_broker.events import Refused
from tests.broker.bench import Bench, copy, spec

TRACEBACK = "Traceback (most recent call last):\n  File x\nRuntimeError: no such file: weights.pt\n"


def ask(bench: Bench, what: str) -> dict[str, Any]:
    bench.says("q", Query(5, what))
    [answer] = bench.wake().to("q", Answer)
    assert answer.id == 5
    assert decode(encode(answer)).body.keys() == answer.body.keys()  # type: ignore[union-attr]
    return answer.body


def states(bench: Bench) -> dict[str, str]:
    return {m["name"] + m["version"]: m["state"] for m in ask(bench, "models")["models"]}


def test_an_unknown_question_is_answered_with_an_error() -> None:
    assert "'weather' is not a question" in ask(Bench(), "weather")["error"]
    assert Answer in KINDS.values()


def test_a_model_waits_then_loads_then_is_ready() -> None:
    bench = Bench()
    assert states(bench) == {"m1": "waiting"}
    bench.join("w")
    assert states(bench) == {"m1": "loading"}
    bench.reports("w", copy())
    assert states(bench) == {"m1": "ready"}


def test_a_model_has_failed_only_when_no_worker_can_be_tried_any_more() -> None:
    bench = Bench()
    bench.join("a")
    bench.join("b")
    bench.reports("a", copy(state="failed", detail=TRACEBACK))
    assert states(bench) == {"m1": "loading"}, "it is placed in the other worker"
    bench.reports("b", copy(state="failed", detail=TRACEBACK))
    assert states(bench) == {"m1": "failed"}
    [model] = ask(bench, "models")["models"]
    assert model["error"] == TRACEBACK
    assert [c["state"] for c in model["copies"]] == ["failed", "failed"]


def test_a_worker_that_is_full_is_no_hope_for_a_model_that_failed_elsewhere() -> None:
    bench = Bench(spec("a"), spec("b"))
    for worker, own in (("wa", copy("a")), ("wb", copy("b", state="failed", detail=TRACEBACK))):
        bench.hears(worker, Join(worker, "host", 7, "cpu", [own], {"copies_max": 1}))
    assert states(bench) == {"a1": "ready", "b1": "failed"}


def test_a_version_without_its_copies_says_why() -> None:
    bench = Bench(spec(device="cuda"))
    bench.join("w")
    [model] = ask(bench, "models")["models"]
    assert (model["state"], model["error"]) == ("waiting", "no worker has a device cuda")


def test_a_broken_version_is_listed_with_its_reason() -> None:
    bench = Bench(spec(version="1"), broken={("m", "2"): "copies must be at least 0"})
    models = ask(bench, "models")["models"]
    assert [(m["version"], m["default"], m["state"]) for m in models] == [
        ("1", True, "waiting"),
        ("2", False, "failed"),
    ]
    assert models[1]["error"] == "copies must be at least 0"
    assert models[0].keys() == models[1].keys()


def test_inputs_and_outputs_are_the_specs_or_what_a_copy_found_out() -> None:
    bench = Bench(spec("a"), spec("b", inputs=(TensorSpec("x", "FP32", (2, -1)),)))
    facts = {"inputs": [["y", "INT64", [1]]], "outputs": [["z", "FP32", []]]}
    bench.join("w", Copy("a", "1", "ready", "", facts), Copy("b", "1", "ready", "", facts))
    a, b = ask(bench, "models")["models"]
    assert (a["inputs"], a["outputs"]) == ([["y", "INT64", [1]]], [["z", "FP32", []]])
    assert b["inputs"] == [["x", "FP32", [2, -1]]]


def test_the_stats_name_workers_queues_and_what_was_refused() -> None:
    bench = Bench(spec(batch_size_max=2, batch_delay_ms=1e6))
    bench.host("w")
    bench.ask(1, 2, 3)
    bench.ask(4, model="nobody")
    bench.wake()
    bench.handle(Refused("callers"))
    stats = ask(bench, "stats")
    assert stats["refused_messages"] == {"callers": 1, "workers": 0}
    assert stats["refused_requests"] == {"UnknownModel": 1}
    assert stats["callers"] == 1
    [worker] = stats["workers"]
    assert (worker["name"], worker["state"], worker["batches"]) == ("w", "spare", 1)
    [model] = stats["models"]
    assert (model["queue"], model["queue_bytes"], model["ready"]) == (1, 2, 1)


def test_the_stats_say_what_batches_take_as_learned_at_warm_up_and_since() -> None:
    bench = Bench(spec(batch_size_max=4))
    bench.join("w", Copy("m", "1", "ready", "", {"batch_us": {"1": 1000, "4": 3000}}))
    assert ask(bench, "stats")["models"][0]["batch_us"] == {"1": 1000, "4": 3000}
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch, compute_us=1100)
    learned = ask(bench, "stats")["models"][0]["batch_us"]
    assert 1000 < learned["1"] < 1100 and learned["4"] > 3000
