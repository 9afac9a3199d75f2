"""A registered version as `GET /models/MODEL` describes it: its keys, their order and types.

Pure. Knows: what TorchServe's clients find there, the broker's state (PROTOCOL.md, section 9). Must not know:
who asks, how a process is looked at.

`loadError` is Headway's own, of a version and of a worker, and only there if loading failed: why it did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headway.torchserve.registration import Registration
from headway.tracebacks import last_line

READY, NOT_READY = "READY", "UNLOADING"
NO_GPU_USAGE = "N/A"
_NUMBERED = re.compile(r".*-w([0-9]{1,5})")  # what agents call their workers
_PER_HOST, _UNNUMBERED = 1000, 500
_ERROR_CHARS_MAX = 2000


@dataclass(frozen=True)
class Process:
    """What is known of a worker's process; zeros where it is not on this host, or gone. `started_s`: since
    1970."""

    started_s: float = 0.0
    memory_bytes: int = 0
    gpu_usage: str = NO_GPU_USAGE


def description(
    registration: Registration,
    entry: Mapping[str, Any],
    workers: list[dict[str, Any]],
    gpu_is_there: bool = False,
) -> dict[str, Any]:
    """`entry`: the version in the broker's state. `workers`: what `worker` makes of each of its copies."""
    pending = int(entry.get("stats", {}).get("queue", 0))
    least, most = _workers(registration, entry)
    said: dict[str, Any] = {
        "modelName": registration.model,
        "modelVersion": registration.version,
        "modelUrl": registration.url,
        "runtime": registration.runtime,
        "minWorkers": least,
        "maxWorkers": most,
        "batchSize": registration.batch_size,
        "maxBatchDelay": registration.batch_delay_ms,
        "responseTimeout": registration.response_timeout_s,
        "startupTimeout": registration.startup_timeout_s,
        "maxRetryTimeoutInSec": registration.retry_timeout_s,
        "clientTimeoutInMills": registration.client_timeout_ms,
        "parallelType": registration.parallel_type,
        "parallelLevel": registration.parallel_level,
        "deviceType": "gpu" if gpu_is_there and registration.device_type != "cpu" else "cpu",
        **({"deviceIds": list(registration.device_ids)} if gpu_is_there and registration.device_ids else {}),
        **_batching(registration),
        "loadedAtStartup": registration.at_startup,
        "workers": workers,
        "jobQueueStatus": {
            "remainingCapacity": max(0, registration.queue_size - pending),
            "pendingRequests": pending,
        },
    }
    error = str(entry.get("error") or "")
    return said | ({"loadError": last_line(error)[:_ERROR_CHARS_MAX]} if error else {})


def _workers(registration: Registration, entry: Mapping[str, Any]) -> tuple[int, int]:
    """The least and the most that were ordered last, be it through Headway's own management."""
    least, most = registration.workers_min, registration.workers_max
    now = entry.get("min", least)
    return (least, most) if least <= now <= max(least, most) else (now, max(now, entry.get("max", now)))


def _batching(registration: Registration) -> dict[str, Any]:
    return {
        "continuousBatching": registration.continuous,
        "useJobTicket": registration.job_ticket,
        "useVenv": registration.use_venv,
        "stateful": registration.stateful,
        "sequenceMaxIdleMSec": registration.sequence_idle_ms,
        "sequenceTimeoutMSec": registration.sequence_timeout_ms,
        "maxNumSequence": registration.sequences_max,
        "maxSequenceJobQueueSize": registration.sequence_queue_size,
    }


def worker(port: int, copy: Mapping[str, Any], host: Mapping[str, Any], process: Process) -> dict[str, Any]:
    """A copy of the version, `host` being the worker in the broker's state that has it."""
    gpu = str(host.get("device", "")).startswith("cuda")
    said = {
        "id": str(port),
        "startTime": _time(process.started_s),
        "status": READY if copy["state"] == "ready" else NOT_READY,
        "memoryUsage": process.memory_bytes,
        "pid": int(host.get("pid", 0)),
        "gpu": gpu,
        "gpuUsage": process.gpu_usage if gpu else NO_GPU_USAGE,
    }
    error = str(copy.get("error") or "") if copy["state"] == "failed" else ""
    return said | ({"loadError": last_line(error)[:_ERROR_CHARS_MAX]} if error else {})


def ports(workers: Iterable[Mapping[str, Any]], first: int, home: str) -> dict[str, int]:
    """What each worker of the broker's state is called: the number that its agent gave it, counted from
    `first` (so every gateway says the same, and it lasts as long as the worker), hosts other than `home`
    after it."""
    workers = sorted(workers, key=lambda each: (each["host"] != home, each["host"], each["name"]))
    hosts = list(dict.fromkeys([home, *(each["host"] for each in workers)]))
    found, unnumbered = {}, _UNNUMBERED
    for each in workers:
        numbered = _NUMBERED.fullmatch(each["name"])
        if not numbered:
            unnumbered += 1
        number = int(numbered[1]) - 1 if numbered else unnumbered
        found[each["name"]] = first + _PER_HOST * hosts.index(each["host"]) + number
    return found


def _time(seconds: float) -> str:
    said = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return said.replace("+00:00", "Z")
