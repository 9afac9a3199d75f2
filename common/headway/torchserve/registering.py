"""What comes of an archive, its `model-config.yaml`, and the wish of who registers it: a `Registration`.

Knows: which of them counts where they differ. Must not know: files, who wishes.

    batch size and delay         what is wished, else the file, else (at start-up) the `models` of
                                 `config.properties`, else a default
    response, start-up timeout   the file, else what is wished, else `models`, else the properties' default
    workers                      the file where it has minWorkers > 0 and maxWorkers >= minWorkers, else what
                                 is wished
    all else                     the file, else a default
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from headway.errors import SettingsError
from headway.torchserve.peek import Peeked
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration

RUNTIMES = ("python", "python3")
BATCH_SIZE, BATCH_DELAY_MS, RETRY_TIMEOUT_S = 1, 100, 300
T = TypeVar("T")


@dataclass(frozen=True)
class Wish:
    """What an API call or a start-up asked for; None (or "") where it said nothing. `workers_max` counts only
    together with `initial_workers`, which is the least; without it, both are the same."""

    url: str
    model_name: str = ""
    handler: str = ""
    runtime: str = ""
    batch_size: int | None = None
    max_batch_delay: int | None = None
    initial_workers: int | None = None
    workers_max: int | None = None
    response_timeout: int | None = None
    startup_timeout: int | None = None


@dataclass(frozen=True)
class Origin:
    """Where the archive is, and how it came to be there. `below`: what counts less than the archive's own
    file: an entry of the property `models`, with TorchServe's names (`batchSize`, `maxBatchDelay`,
    `responseTimeout`, `startupTimeout`)."""

    archive: str
    downloaded: bool = False
    at_startup: bool = False
    below: dict[str, Any] = field(default_factory=dict)


def registration_of(peeked: Peeked, wish: Wish, properties: Properties, origin: Origin) -> Registration:
    """Raises: SettingsError for a runtime that there is not."""
    said, below, manifest = peeked.config.values, origin.below, peeked.manifest
    workers = _workers(said, wish)
    return Registration(
        model=wish.model_name or manifest.model_name,
        version=manifest.model_version,
        url=wish.url,
        archive=origin.archive,
        runtime=_runtime(wish.runtime) or str(manifest.content.get("runtime") or "python"),
        handler=wish.handler or ("" if manifest.handler else properties.default_service_handler),
        batch_size=_first(wish.batch_size, said.get("batchSize"), below.get("batchSize"), BATCH_SIZE),
        batch_delay_ms=_first(
            wish.max_batch_delay, said.get("maxBatchDelay"), below.get("maxBatchDelay"), BATCH_DELAY_MS
        ),
        workers_min=workers[0],
        workers_max=workers[1],
        response_timeout_s=_first(
            said.get("responseTimeout"),
            wish.response_timeout,
            below.get("responseTimeout"),
            properties.default_response_timeout,
        ),
        startup_timeout_s=_first(
            said.get("startupTimeout"),
            wish.startup_timeout,
            below.get("startupTimeout"),
            properties.default_startup_timeout,
        ),
        queue_size=_first(
            said.get("jobQueueSize"), None, below.get("jobQueueSize"), properties.job_queue_size
        ),
        client_timeout_ms=said.get("clientTimeoutInMills", 0),
        retry_timeout_s=said.get("maxRetryTimeoutInSec", RETRY_TIMEOUT_S),
        device_type=said.get("deviceType", ""),
        device_ids=tuple(said.get("deviceIds", ())),
        parallel_type=said.get("parallelType", ""),
        parallel_level=said.get("parallelLevel", 0),
        job_ticket=said.get("useJobTicket", False),
        use_venv=said.get("useVenv", False),
        continuous=peeked.config.model_keys.get("continuous", False),
        in_flight_max=peeked.config.model_keys.get("in_flight_max", 0),
        stateful=said.get("sequenceBatching", False),
        **_sequences(said),
        at_startup=origin.at_startup,
        downloaded=origin.downloaded,
    )


def _workers(said: dict[str, Any], wish: Wish) -> tuple[int, int]:
    least, most = said.get("minWorkers", 0), said.get("maxWorkers", 0)
    if least > 0 and most >= least:
        return least, most
    wished = max(wish.initial_workers or 0, 0)
    return wished, max(wish.workers_max or 0, wished)


def _sequences(said: dict[str, Any]) -> dict[str, Any]:
    """What is said of sequences; nothing counts without `sequenceMaxIdleMSec`."""
    if not said.get("sequenceMaxIdleMSec"):
        return {}
    return {
        "sequence_idle_ms": said["sequenceMaxIdleMSec"],
        "sequence_timeout_ms": said.get("sequenceTimeoutMSec", 0),
        "sequences_max": said.get("maxNumSequence", 1),
        "sequence_queue_size": said.get("maxSequenceJobQueueSize", 1),
    }


def _runtime(wished: str) -> str:
    if wished and wished not in RUNTIMES:
        raise SettingsError(f"Invalid RuntimeType value: {wished}")
    return wished


def _first(*values: T | None) -> T:
    """The first that was said."""
    return next(value for value in values if value is not None)
