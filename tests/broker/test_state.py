"""The state of everything as one document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headway.messages import AgentJoin, AgentWorker, Answer, Copy, Join
from headway.wire import decode, encode
from tests.broker.bench import Bench, spec
from tests.broker.test_hosts import DEVICE

PROTOCOL = (Path(__file__).parents[2] / "common" / "PROTOCOL.md").read_text()


def listed(row: str) -> list[str]:
    """The keys that a row of the state's table lists, without those in parentheses."""
    section = PROTOCOL.split("## 9. Management")[1]
    [cells] = re.findall(rf"^\| {row} \| (.*) \|$", section.split("The **state** is a map")[1], re.MULTILINE)
    while "(" in cells:
        cells = re.sub(r"\([^()]*\)", "", cells)
    return re.findall(r"`(\w+)`", cells)


def everything() -> Bench:
    """A broken version, one that fails, one that serves, a worker with all facts, an agent."""
    bench = Bench(spec(copies=2), spec("n", memory_mb=1), broken={("b", "1"): "a typo"})
    facts = {
        "device_id": "GPU-1",
        "device_name": "a card",
        "memory_bytes": 1 << 30,
        "device_memory_bytes": 1 << 31,
        "share": 40,
        "cuda_mps": "client",
    }
    copies = [
        Copy("m", "1", "ready", "", {"memory_bytes": 5000, "batch_us": {"1": 100}}),
        Copy("n", "1", "failed", "ValueError: bad weights", {}),
    ]
    bench.hears("w", Join("w", "h", 7, "cuda:0", copies, facts))
    process = AgentWorker("w", 7, "cpu", "running", "")
    offer = {"workers_max": 2, "workers_wanted": 1, "devices": [DEVICE]}
    bench.hears("agent", AgentJoin("agent", "h", offer, [process]))
    bench.ask(1)
    bench.wake()
    return bench


def document(bench: Bench) -> dict[str, Any]:
    made: dict[str, Any] = bench.scheduler._state.document(bench.now)
    return made


@pytest.mark.parametrize("part", ["broker", "workers", "devices", "agents"])
def test_each_part_has_the_keys_that_the_protocol_lists(part: str) -> None:
    found = document(everything())[part]
    for each in found if isinstance(found, list) else [found]:
        assert sorted(each) == sorted(listed(part))


def test_each_version_has_what_the_query_says_of_it_and_what_the_protocol_lists() -> None:
    bench = everything()
    of_query = {(m["name"], m["version"]): set(m) for m in bench.scheduler.report.answer("models")["models"]}
    more = set(listed("models")) - {"models", "stats"} | {"stats"}
    for model in document(bench)["models"]:
        assert set(model) == of_query[(model["name"], model["version"])] | more
    assert [(m["name"], m["state"]) for m in document(bench)["models"]] == [
        ("b", "failed"),
        ("m", "ready"),
        ("n", "failed"),
    ]


def test_the_parts_are_those_of_the_protocol() -> None:
    assert list(document(everything())) == ["broker", "models", "workers", "devices", "agents", "events"]
    assert sorted(document(everything())["agents"][0]["workers"][0]) == sorted(AgentWorker._fields)


def test_the_document_survives_the_wire() -> None:
    made = document(everything())
    answer = decode(encode(Answer(1, made)))
    assert isinstance(answer, Answer)
    assert json.dumps(answer.body) == json.dumps(made)


def test_a_worker_is_shown_with_its_memory_and_its_device_with_what_all_take_of_it() -> None:
    bench = everything()
    other = Join("v", "h", 8, "cuda:0", [Copy("m", "1", "ready", "", {})], {"device_id": "GPU-1"})
    bench.hears("v", other)
    bench.wake()
    made = document(bench)
    [w, v] = made["workers"]
    assert (w["memory_bytes"], w["memory_used_bytes"], w["share"], w["cuda_mps"]) == (
        1 << 30,
        5000,
        40,
        "client",
    )
    assert v["memory_used_bytes"] == 5000 + (1 << 20), "one was measured, one is declared and being loaded"
    [device] = made["devices"]
    assert (device["workers"], device["memory_used_bytes"]) == (["w", "v"], 10_000 + (1 << 20))
    assert (device["name"], device["memory_bytes"]) == ("a card", 1 << 31)


def test_two_hosts_may_call_their_devices_alike() -> None:
    bench = Bench()
    for host in ("a", "b"):
        bench.hears(host, Join(host, host, 7, "cpu", []))
    bench.wake()
    assert [(d["host"], d["workers"]) for d in document(bench)["devices"]] == [("a", ["a"]), ("b", ["b"])]


def test_only_the_last_hundred_decisions_are_kept() -> None:
    bench = Bench()
    for number in range(120):
        bench.join(f"w{number}")
        bench.wake()
    assert len(document(bench)["events"]) == 100


def test_facts_of_any_kind_do_no_harm() -> None:
    bench = Bench()
    facts = {"memory_bytes": "much", "share": None, "device_id": 7, "device_memory_bytes": -1, "cuda_mps": []}
    bench.hears("w", Join("w", "h", 7, "cpu", [], facts))
    bench.wake()
    made = document(bench)
    assert made["workers"][0]["device_id"] == "7"
    assert isinstance(decode(encode(Answer(1, made))), Answer)
