"""What the broker says of itself: the answers to `Query`, and why a model cannot serve.

Knows: how to read catalog, roster and counters. Must not know: how they change.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from headway.errors import InvalidInput
from headway.messages import QUERIES
from headway.models import ModelSpec, TensorSpec
from headway_broker.board import Board
from headway_broker.catalog import Key
from headway_broker.placement import fits
from headway_broker.sequence_queue import SequenceQueue


class Report:
    """A reader of the broker's parts."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._catalog = board.catalog
        self._roster = board.roster
        self._queues = board.queues
        self._ledger = board.ledger
        self.short: dict[Key, str] = {}  # why a version has not the copies it shall have
        self.refused: Counter[str] = Counter()  # messages that were none, by side

    def answer(self, what: str) -> dict[str, Any]:
        """The body of an Answer, but for the state. An unknown question is answered with an `error`."""
        if what == "models":
            return {"models": self.models()}
        if what == "stats":
            return self.stats()
        error = InvalidInput(f"{what!r} is not a question; ask for one of {', '.join(QUERIES)}")
        return {"error": str(error)}

    def unservable(self, key: Key) -> str:
        """Why no copy can serve and none is on its way; "" while there is hope."""
        spec = self._queues[key].spec
        if reason := self.unordered(key):
            return reason
        hosts = self._roster.hosts(key)
        if key in self._board.held and all(copy.state == "failed" for _, copy in hosts):
            return f"model {spec.name!r}: {self._board.held[key]}"
        if any(copy.state != "failed" for _, copy in hosts) or not hosts:
            return ""
        if any(key not in w.copies and fits(spec, w.about.device) and not w.is_full for w in self._roster):
            return ""
        worker, copy = hosts[-1]
        return f"model {spec.name!r} failed to load in {worker.name}: {_last_line(copy.report.detail)}"

    def unordered(self, key: Key) -> str:
        """That the operator wants no copies of it, in words; "" for a version that has some, or may get
        some."""
        if key not in self._catalog.specs or self._catalog.limits(key)[1]:
            return ""
        return f"no copies of version {key[1]} of model {key[0]!r} are ordered"

    def models(self) -> list[dict[str, Any]]:
        """Every version, with its state and where its copies are."""
        good = [self._model(spec) for spec in self._catalog]
        broken = [self._broken(key, reason) for key, reason in self._catalog.broken.items()]
        return sorted(good + broken, key=lambda m: (m["name"], m["version"]))

    def _model(self, spec: ModelSpec) -> dict[str, Any]:
        hosts = self._roster.hosts(spec.key)
        ready = sum(copy.state == "ready" for _, copy in hosts)
        errors = [copy.report.detail for _, copy in hosts if copy.state == "failed"]
        facts = next((copy.report.facts for _, copy in hosts if copy.state == "ready"), {})
        return {
            **self._common(spec.key),
            "state": self._state(spec, ready),
            "wanted": self._board.copies[spec.key],
            "ready": ready,
            "error": self._error(spec.key, errors),
            "backend": spec.backend,
            "batch_size_max": spec.batch_size_max,
            "inputs": _tensors(spec.inputs) or facts.get("inputs", []),
            "outputs": _tensors(spec.outputs) or facts.get("outputs", []),
            "copies": [
                {"worker": w.name, "state": c.state, "error": c.report.detail, "facts": c.report.facts}
                for w, c in hosts
            ],
        }

    def _error(self, key: Key, failures: list[str]) -> str:
        """Why it has not the copies that it shall have; "" if it has, or nothing is known yet."""
        if reason := self._board.held.get(key):
            return reason
        words = [self._board.losses.get(key), self.short.get(key)]
        return failures[-1] if failures else "; ".join(filter(None, words))

    def _state(self, spec: ModelSpec, ready: int) -> str:
        if ready:
            return "ready"
        if self.unordered(spec.key):
            return "asleep"
        if self.unservable(spec.key):
            return "failed"
        if self._roster.hosts(spec.key):
            return "loading"
        return "waiting" if self._board.copies[spec.key] else "asleep"

    def _broken(self, key: Key, reason: str) -> dict[str, Any]:
        nothing: dict[str, Any] = {"inputs": [], "outputs": [], "copies": []}
        state = {"state": "failed", "wanted": 0, "ready": 0, "error": reason}
        return {**self._common(key), **state, "backend": "", "batch_size_max": 0, **nothing}

    def _common(self, key: Key) -> dict[str, Any]:
        return {"name": key[0], "version": key[1], "default": self._catalog.default(key[0]) == key[1]}

    def stats(self) -> dict[str, Any]:
        """Counters and histograms, as PROTOCOL.md lists them."""
        return {
            "refused_messages": {side: self.refused[side] for side in ("callers", "workers")},
            "refused_requests": dict(self._ledger.unknown),
            "callers": len(self._ledger.callers),
            "workers": [
                {
                    "name": worker.name,
                    "host": worker.about.host,
                    "pid": worker.about.pid,
                    "device": worker.about.device,
                    "state": worker.state,
                    "batches": len(worker.flights),
                }
                for worker in self._roster
            ],
            "models": [self.model_stats(key) for key in self._queues],
        }

    def model_stats(self, key: Key) -> dict[str, Any]:
        queue = self._queues[key]
        ready = self._roster.count(key, "ready")
        waits = {"queue": len(queue), "queue_bytes": queue.bytes, "ready": ready}
        learned = {"batch_us": self._board.costs[key].facts()}
        if isinstance(queue, SequenceQueue):
            waits["sequences"] = len(queue.sequences.open)
        return {"name": key[0], "version": key[1], **waits, **learned, **self._ledger.stats[key].facts()}


def _tensors(specs: tuple[TensorSpec, ...]) -> list[list[Any]]:
    return [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]


def _last_line(text: str) -> str:
    return text.strip().rsplit("\n", 1)[-1]
