"""What the TorchServe door counts and logs of each request.

Knows: which metrics a request raises. Must not know: HTTP, gRPC, where values go (that is `book`).

Two calls: `access` for every HTTP request, whatever it asked for; `count` for each prediction, whichever
interface it came through. Both only remember: PERF: what they caused is written FLUSH_S later, for all
requests of that time. (One write costs as much as ten requests' lines.)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import time
from typing import Any, NamedTuple

from headway.torchserve.metrics import META, unpacked
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.book import LOGS, Book
from headway_gateway.torchserve.host import Reading
from headway_gateway.torchserve.logfile import LogFile, Stamp
from headway_gateway.torchserve.series import Series, plain

DEFAULT_VERSION = "default"
FLUSH_S = 0.05
NOT_FOUND = 404
MODELS_MAX = 1000
FAILED = "message"  # in the meta of an error of the handler's
_NOTHING: Mapping[str, Any] = {}


class _Prediction(NamedTuple):
    status: int
    model: str
    version: str
    took_s: float
    meta: Mapping[str, Any]
    timed: bool


class _Access(NamedTuple):
    at: float
    peer: str
    line: str
    status: int
    took_s: float


class _OfModel(NamedTuple):
    """The series of a model version, as a client names it; None: not declared."""

    requests: Series | None
    latency: Series | None
    queue: Series | None


class DoorMetrics:
    """One process's. To be opened in it, after the fork."""

    def __init__(self, properties: Properties, host: str = "") -> None:
        """Raises: SettingsError for a mode or a file of declarations that cannot be."""
        self.host = host or socket.gethostname()
        self.book = Book(properties, self.host)
        self._log = LogFile(Path(properties.log_location or LOGS), "access_log")
        self._stamp = Stamp()
        self._predictions: list[_Prediction] = []
        self._accesses: list[_Access] = []
        self._of_models: dict[tuple[str, str], _OfModel] = {}
        self._queue_time = self.book.series("QueueTime")
        self._thread_time = self.book.series("WorkerThreadTime")
        self._classes = {kind: self.book.series(f"Requests{kind}XX") for kind in (2, 4, 5)}
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._log.open(time())
        self.book.open(time())

    def close(self) -> None:
        self.flush()
        self._log.close()
        self.book.close()

    def count(
        self,
        status: int,
        model: str,
        version_named: str,
        took_s: float,
        meta: Mapping[str, Any] | None = None,
        timed: bool = True,
    ) -> None:
        """A prediction was answered, or refused. `version_named`: as the client said it, "" if it did not;
        `meta`: of the broker's reply, if there was one; `timed`: whether the latencies count it, too, if
        its handler did not fail."""
        self._predictions.append(
            _Prediction(status, model, version_named, took_s, meta if meta is not None else _NOTHING, timed)
        )
        self._due()

    def access(self, peer: str, line: str, status: int, took_s: float) -> None:
        """An HTTP request was answered. `peer`: ADDRESS:PORT; `line`: its first line, as it came."""
        self._accesses.append(_Access(time(), peer, line, status, took_s))
        self._due()

    def read(self, readings: Iterable[Reading]) -> None:
        """How the host does."""
        for name, value, device in readings:
            self.book.server(name, value, (("DeviceId", device),) if device else ())
        self._due()

    def loaded(self, worker: str, load_ms: float) -> None:
        """A worker has loaded its model."""
        self.book.server("WorkerLoadTime", load_ms, (("WorkerName", worker),))
        self._due()

    def flush(self) -> None:
        """Write and share what came since the last time."""
        if self._timer:
            self._timer.cancel()
        self._timer = None
        predictions, self._predictions = self._predictions, []
        accesses, self._accesses = self._accesses, []
        now = time()
        for prediction in predictions:
            self._enter(prediction)
        if accesses:
            self._enter_accesses(accesses, now)
        self.book.flush(now)

    def _due(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def _enter_accesses(self, accesses: list[_Access], now: float) -> None:
        lines, stamp = [], self._stamp.at
        for at, peer, line, status, took_s in accesses:
            lines.append(f'{stamp(at)}/{peer} "{plain(line)}" {status} {int(took_s * 1000)}\n')
            self.book.note(self._classes.get(status // 100), 1.0)
        self._log.write("".join(lines), now)

    def _enter(self, prediction: _Prediction) -> None:
        status, model, version, took_s, meta, timed = prediction
        queue_us = meta.get("queue_us")
        if status == NOT_FOUND and queue_us is None:
            return  # there is no such model: callers could invent many
        note, series = self.book.note, self._of_models.get((model, version))
        if series is None:
            series = self._of_model(model, version)
        note(series.requests, 1.0)
        if isinstance(queue_us, int):
            if timed and FAILED not in meta:
                note(series.latency, round(took_s * 1e6, 3))
                note(series.queue, float(queue_us))
                note(self._queue_time, queue_us / 1000)
            note(self._thread_time, (meta["worker_us"] - meta["compute_us"]) / 1000)
        if META in meta:
            for record in unpacked(meta[META]):
                self.book.model(record)

    def _of_model(self, model: str, version: str) -> _OfModel:
        labels = (("model_name", model), ("model_version", version or DEFAULT_VERSION))
        if len(self._of_models) >= MODELS_MAX:
            self._of_models.clear()
        series = self._of_models[model, version] = _OfModel(
            self.book.series("ts_inference_requests_total", labels),
            self.book.series("ts_inference_latency_microseconds", labels),
            self.book.series("ts_queue_latency_microseconds", labels),
        )
        return series
