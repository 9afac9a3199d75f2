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
from headway_gateway.torchserve.book import LEGACY, LOGS, Book
from headway_gateway.torchserve.host import Reading
from headway_gateway.torchserve.logfile import LogFile, Stamp
from headway_gateway.torchserve.series import Series, plain

DEFAULT_VERSION = "default"
FLUSH_S = 0.05
NOT_FOUND = 404
MODELS_MAX = 1000
FAILED = "message"  # in the meta of an error of the handler's
_ONCE = (1.0,)
_NOTHING: Mapping[str, Any] = {}


_Prediction = tuple[int, str, str, float, Mapping[str, Any], bool]  # as `count` has them
_Access = tuple[float, str, str, int, float]  # when it was answered, and as `access` has them


class _OfModel(NamedTuple):
    """The series of a model version, as a client names it; None: not declared. `timed`: those that a
    prediction raises which took its time, `untimed`: another that a worker had."""

    requests: Series | None
    timed: tuple[Series | None, ...]
    untimed: tuple[Series | None, ...]


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
        self._classes = {kind: (self.book.series(f"Requests{kind}XX"),) for kind in (2, 4, 5)}
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
        said = meta if meta is not None else _NOTHING
        self._predictions.append((status, model, version_named, took_s, said, timed))
        self._due()

    def access(self, peer: str, line: str, status: int, took_s: float) -> None:
        """An HTTP request was answered. `peer`: ADDRESS:PORT; `line`: its first line, as it came."""
        self._accesses.append((time(), peer, line, status, took_s))
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
            if series := self._classes.get(status // 100):
                self.book.note_all(series, _ONCE)
        self._log.write("".join(lines), now)

    def _enter(self, prediction: _Prediction) -> None:
        status, model, version, took_s, meta, timed = prediction
        queue_us = meta.get("queue_us")
        if status == NOT_FOUND and queue_us is None:
            return  # there is no such model: callers could invent many
        series = self._of_models.get((model, version)) or self._of_model(model, version)
        if not isinstance(queue_us, int):
            self.book.note(series.requests, 1.0)
        else:
            thread_ms = (meta["worker_us"] - meta["compute_us"]) / 1000
            if timed and FAILED not in meta:
                latency_us = round(took_s * 1e6, 3)
                values = (1.0, latency_us, float(queue_us), queue_us / 1000, thread_ms)
                self.book.note_all(series.timed, values)
            else:
                self.book.note_all(series.untimed, (1.0, thread_ms))
        if META in meta:
            for record in unpacked(meta[META]):
                self.book.model(record)

    def _of_model(self, model: str, version: str) -> _OfModel:
        labels = (("model_name", model), ("model_version", version or DEFAULT_VERSION))
        if len(self._of_models) >= MODELS_MAX:
            self._of_models.clear()
        requests, latency, queue = (self.book.series(name, labels) for name in LEGACY)
        timed = (requests, latency, queue, self._queue_time, self._thread_time)
        series = self._of_models[model, version] = _OfModel(requests, timed, (requests, self._thread_time))
        return series
