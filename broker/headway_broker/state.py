"""Everything there is to know of a running server, as one document: `state`, see PROTOCOL.md section 9.

Pure. Knows: how to read the board. Must not know: how any of it changes, HTTP, terminals.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from headway_broker.agents import Agent
from headway_broker.board import Board
from headway_broker.catalog import Key
from headway_broker.hosts import Hosts
from headway_broker.report import Report
from headway_broker.steering import Steering
from headway_broker.workers import Worker


@dataclass(frozen=True)
class About:
    """What the broker says of itself. `token`: what commands must have; "" refuses them all. `epoch_s`: what
    monotonic time 0 is since 1970. `restored`: what was wrong with the state file, if anything was."""

    host: str = ""
    pid: int = 0
    version: str = ""
    model_store: str = ""
    state_dir: str = ""
    token: str = ""
    restored: str = ""
    started: float = -math.inf
    epoch_s: float = 0.0


class State:
    """Makes the document."""

    def __init__(self, board: Board, report: Report, steering: Steering, hosts: Hosts, about: About) -> None:
        self._board = board
        self._report = report
        self._steering = steering
        self._hosts = hosts
        self._about = about

    def unservable(self, key: Key) -> str:
        """See `Report.unservable`."""
        return self._report.unservable(key)

    def document(self, now: float) -> dict[str, Any]:
        """All of it."""
        used = {worker.identity: self._used(worker) for worker in self._board.roster}
        return {
            "broker": self._broker(now),
            "models": self.models(),
            "workers": [self._worker(worker, used) for worker in self._board.roster],
            "devices": self._devices(used),
            "agents": [_agent(agent, self._hosts.wanted(agent)) for agent in self._board.agents],
            "events": [[at + self._about.epoch_s, note.event, note.facts] for at, note in self._board.notes],
        }

    def models(self) -> list[dict[str, Any]]:
        """Every version."""
        return [self._model(model) for model in self._report.models()]

    def _broker(self, now: float) -> dict[str, Any]:
        about = self._about
        return {
            "host": about.host,
            "pid": about.pid,
            "version": about.version,
            "uptime_s": round(now - max(about.started, 0.0), 3),
            "model_store": about.model_store,
            "state_dir": about.state_dir,
            "callers": len(self._board.ledger.callers),
            "restored": about.restored,
        }

    def _model(self, model: dict[str, Any]) -> dict[str, Any]:
        key, catalog = (model["name"], model["version"]), self._board.catalog
        if key not in catalog.specs:
            nothing = {"min": 0, "max": 0, "traffic": 0.0, "wanted_traffic": 0.0, "scaling": "", "stats": {}}
            return {**model, **nothing, "memory_bytes": 0}
        least, most = catalog.limits(key)
        wanted = catalog.wanted(key[0])
        return {
            **model,
            "min": least,
            "max": most,
            "traffic": catalog.serving(key[0]).get(key[1], 0.0),
            "wanted_traffic": wanted.get(key[1], 0.0) / sum(wanted.values()),
            "scaling": self._board.scaling.get(key, ""),
            "memory_bytes": self._steering.need(catalog.specs[key]),
            "stats": self._report.model_stats(key),
        }

    def _worker(self, worker: Worker, used: dict[bytes, int]) -> dict[str, Any]:
        about, facts = worker.about, worker.about.facts
        return {
            "name": worker.name,
            "host": about.host,
            "pid": about.pid,
            "device": about.device,
            "device_id": device_of(worker)[1],
            "state": worker.state,
            "draining": worker.draining,
            "batches": len(worker.flights),
            "copies": ["/".join(key) for key in worker.copies],
            "memory_bytes": facts.get("memory_bytes", 0),
            "memory_used_bytes": used[worker.identity],
            "share": facts.get("share", 0),
            "cuda_mps": facts.get("cuda_mps", ""),
            "busy": round(self._steering.demand.busy(worker), 3),
        }

    def _used(self, worker: Worker) -> int:
        """What its copies take, as far as that is known."""
        queues = self._board.queues
        specs = [
            queues[key].spec
            for key, copy in worker.copies.items()
            if copy.state != "failed" and key in queues
        ]
        return sum(map(self._steering.need, specs))

    def _devices(self, used: dict[bytes, int]) -> list[dict[str, Any]]:
        workers: dict[tuple[str, str], list[Worker]] = defaultdict(list)
        for worker in self._board.roster:
            workers[device_of(worker)].append(worker)
        return [
            {
                "host": host,
                "device_id": device,
                "device": on[0].about.device,
                "name": on[0].about.facts.get("device_name", ""),
                "memory_bytes": on[0].about.facts.get("device_memory_bytes", 0),
                "memory_used_bytes": sum(used[worker.identity] for worker in on),
                "workers": [worker.name for worker in on],
            }
            for (host, device), on in sorted(workers.items())
        ]


def device_of(worker: Worker) -> tuple[str, str]:
    """The host and the device's name on it."""
    return worker.about.host, str(worker.about.facts.get("device_id") or worker.about.device)


def _agent(agent: Agent, wanted: int) -> dict[str, Any]:
    facts = agent.about.facts
    return {
        "name": agent.about.name,
        "host": agent.host,
        "wanted": wanted,
        "workers_max": facts.get("workers_max", 0),
        "devices": facts.get("devices", []),
        "workers": [worker._asdict() for worker in agent.workers.values()],
    }
