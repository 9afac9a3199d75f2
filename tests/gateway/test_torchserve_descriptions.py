"""headway_gateway.torchserve.descriptions and processes: what is not seen through operations."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from headway.torchserve.registration import Registration
from headway_gateway.torchserve.descriptions import Process, description, ports, worker
from headway_gateway.torchserve.processes import gpu_usage, look_at, usage_of

pytestmark = pytest.mark.pure
M = Registration("m", "1", "m.mar", "/m.mar", workers_min=1, workers_max=3)


def on(name: str, host: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "host": host, "device": "cpu", "device_id": "cpu", "pid": os.getpid(), **more}


def test_a_worker_keeps_its_port_when_others_go() -> None:
    workers = [on("a-w1"), on("a-w2"), on("a-w10")]
    assert ports(workers, 9000, "a") == {"a-w1": 9000, "a-w2": 9001, "a-w10": 9009}
    assert ports(workers[1:], 9000, "a") == {"a-w2": 9001, "a-w10": 9009}


def test_no_two_workers_have_one_port() -> None:
    workers = [on("a-w1"), on("b-w1", "b"), on("by-hand"), on("c-w1", "c"), on("another", "b")]
    found = ports(workers, 9000, "b")
    assert found["b-w1"] == 9000
    assert len(set(found.values())) == len(workers)


def test_a_worker_has_torchserves_keys_in_their_order() -> None:
    said = worker(9000, {"state": "ready", "error": ""}, on("a-w1", pid=7), Process(0.25, 5))
    assert list(said.items()) == [
        ("id", "9000"),
        ("startTime", "1970-01-01T00:00:00.250Z"),
        ("status", "READY"),
        ("memoryUsage", 5),
        ("pid", 7),
        ("gpu", False),
        ("gpuUsage", "N/A"),
    ]


def test_a_worker_that_loads_is_not_ready() -> None:
    said = worker(9000, {"state": "loading", "error": ""}, on("w", device="cuda:0"), Process(gpu_usage="x"))
    assert (said["status"], said["gpu"], said["gpuUsage"]) == ("UNLOADING", True, "x")


def test_why_loading_failed_is_said_of_the_worker_and_of_the_version() -> None:
    copy = {"state": "failed", "error": "Traceback\n  line\nValueError: no weights"}
    assert worker(9000, copy, on("w"), Process())["loadError"] == "ValueError: no weights"
    said = description(M, {"error": copy["error"], "min": 1}, [])
    assert list(said.items())[-1] == ("loadError", "ValueError: no weights")


@pytest.mark.parametrize(("now", "shown"), [(1, (1, 3)), (3, (1, 3)), (4, (4, 4)), (0, (0, 0))])
def test_what_headways_own_management_ordered_is_shown(now: int, shown: tuple[int, int]) -> None:
    said = description(M, {"min": now, "max": now}, [])
    assert (said["minWorkers"], said["maxWorkers"]) == shown


def test_devices_are_listed_where_they_were_chosen() -> None:
    chosen = Registration("m", "1", "m.mar", "/m.mar", device_type="gpu", device_ids=(1, 2))
    said = description(chosen, {}, [], gpu_is_there=True)
    assert (said["deviceType"], said["deviceIds"]) == ("gpu", [1, 2])
    assert description(M, {}, [], gpu_is_there=True)["deviceType"] == "gpu"
    on_cpu = replace(chosen, device_type="cpu", device_ids=())
    assert description(on_cpu, {}, [], gpu_is_there=True)["deviceType"] == "cpu"


def test_where_there_are_no_gpus_all_is_the_cpus_whatever_the_archive_says() -> None:
    chosen = Registration("m", "1", "m.mar", "/m.mar", device_type="gpu", device_ids=(1, 2))
    said = description(chosen, {}, [])
    assert said["deviceType"] == "cpu" and "deviceIds" not in said


def test_a_full_queue_has_no_room_left() -> None:
    assert description(M, {"stats": {"queue": 500}}, [])["jobQueueStatus"] == {
        "remainingCapacity": 0,
        "pendingRequests": 500,
    }


def test_a_process_of_this_host_is_looked_at() -> None:
    seen = look_at([on("mine"), on("gone", pid=2**22 + 1), on("other", "b")], "a")
    assert set(seen) == {"mine", "gone"}
    assert seen["mine"].memory_bytes > 1 << 20
    assert seen["mine"].started_s > 1e9
    assert seen["gone"] == Process()


def test_the_use_of_a_gpu_is_said_as_torchserve_says_it() -> None:
    said = "gpuId::1 utilization.gpu [%]::7 % utilization.memory [%]::3 % memory.used [MiB]::512 MiB"
    assert usage_of("1, 7 %, 3 %, 512 MiB\n") == said
    assert usage_of("no devices were found") == "N/A"


def test_without_nvidia_smi_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_usage("0") == "N/A"


def test_a_running_batch_is_described_as_one() -> None:
    for is_so in (True, False):
        assert description(replace(M, continuous=is_so), {}, [])["continuousBatching"] is is_so
