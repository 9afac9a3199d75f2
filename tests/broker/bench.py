"""A scheduler on a bench: its peers are played by the test, and time passes when the test says so.

After every `wake` the invariants are checked. `Sent` is what that wake sent, sorted for the eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from headway.messages import (
    OK,
    Alive,
    Batch,
    Batches,
    BatchReply,
    Cancels,
    Copy,
    CopyState,
    Dismiss,
    Join,
    Leave,
    Load,
    Released,
    Replies,
    Reply,
    Request,
    Requests,
    Result,
    Results,
    Unload,
)
from headway.models import ModelSpec
from headway_broker.catalog import Catalog
from headway_broker.desired import Desired
from headway_broker.events import Action, FromCaller, FromWorker, Note, ToCaller, ToWorker
from headway_broker.queues import OpenRequest
from headway_broker.scheduler import BrokerTimes, Scheduler
from headway_broker.state import About

START = 1000.0


def spec(name: str = "m", version: str = "1", **keys: Any) -> ModelSpec:
    return ModelSpec(name, version, f"/models/{name}/{version}", "python", **keys)


def open_request(id: int = 1, arrived: float = 0.0, timeout_s: float = 10.0, **keys: Any) -> OpenRequest:
    """An accepted request, for tests of parts that do not accept any."""
    given: dict[str, Any] = {"caller": b"c", "rows": 1, "tensors": b"t%d" % id, "key": ("m", "1"), **keys}
    rows = given.pop("rows")
    return OpenRequest(
        given["caller"],
        id,
        given["key"],
        arrived,
        arrived + timeout_s,
        rows,
        rows,
        {},
        given["tensors"],
    )


def copy(model: str = "m", state: str = "ready", detail: str = "", version: str = "1") -> Copy:
    return Copy(model, version, state, detail, {})


@dataclass
class Sent:
    """What one wake said. Workers and callers are named as the test named them."""

    actions: list[Action] = field(default_factory=list)

    def to(self, peer: str, kind: type[Any]) -> list[Any]:
        """The messages of a kind to one peer."""
        return [
            action.message
            for action in self.actions
            if isinstance(action, ToCaller | ToWorker)
            and (action.caller if isinstance(action, ToCaller) else action.worker) == peer.encode()
            and isinstance(action.message, kind)
        ]

    @property
    def batches(self) -> list[tuple[str, Batch]]:
        return [
            (action.worker.decode(), batch)
            for action in self.actions
            if isinstance(action, ToWorker) and isinstance(action.message, Batches)
            for batch in action.message.batches
        ]

    @property
    def riders(self) -> list[tuple[str, list[bytes]]]:
        """Each batch's worker, and the tensors in it (which name their request: t1, t2 …)."""
        return [(worker, [r.tensors for r in batch.requests]) for worker, batch in self.batches]

    def replies(self, caller: str = "c") -> dict[int, Reply]:
        return {reply.id: reply for message in self.to(caller, Replies) for reply in message.replies}

    def released(self, caller: str = "c") -> list[int]:
        return [id for message in self.to(caller, Released) for id in message.ids]

    def codes(self, caller: str = "c") -> dict[int, int]:
        return {id: reply.code for id, reply in self.replies(caller).items()}

    @property
    def orders(self) -> list[tuple[str, str, str]]:
        """(worker, "load" or "unload", model)."""
        return [
            (action.worker.decode(), type(action.message).__name__.lower(), action.message.model)
            for action in self.actions
            if isinstance(action, ToWorker) and isinstance(action.message, (Load, Unload))
        ]

    @property
    def dismissed(self) -> list[tuple[str, str, int]]:
        return [
            (action.worker.decode(), *action.message)
            for action in self.actions
            if isinstance(action, ToWorker) and isinstance(action.message, Dismiss)
        ]

    @property
    def notes(self) -> list[Note]:
        return [action for action in self.actions if isinstance(action, Note)]


class Bench:
    """One scheduler and everybody around it."""

    def __init__(
        self,
        *specs: ModelSpec,
        broken: Any = None,
        policy: Any = None,
        token: str = "",
        desired: Desired | None = None,
        started: float = -math.inf,
        **times: float,
    ) -> None:
        catalog = Catalog(specs or (spec(),), broken, desired)
        self.scheduler = Scheduler(
            catalog, b"nonce", BrokerTimes(**times), policy, About(token=token, started=started)
        )
        self.now = START

    # callers

    def ask(self, *ids: int, caller: str = "c", timeout_s: float = 60.0, **keys: Any) -> None:
        """Requests in one message; the tensors of request 1 are b"t1"."""
        fields: dict[str, Any] = {"model": "m", "version": "", "attempt": 0, "rows": 0, **keys}
        requests = [
            Request(
                id,
                fields["model"],
                fields["version"],
                int(timeout_s * 1000),
                fields["attempt"],
                fields["rows"],
                fields.get("options", {}),
                fields.get("tensors", b"t%d" % id),
            )
            for id in ids
        ]
        self.says(caller, Requests(requests))

    def cancel(self, *ids: int, caller: str = "c") -> None:
        self.says(caller, Cancels(list(ids)))

    def says(self, caller: str, message: Any) -> None:
        self.handle(FromCaller(caller.encode(), message))

    # workers

    def join(self, worker: str = "w", *copies: Copy, device: str = "cpu") -> None:
        self.hears(worker, Join(worker, "host", 7, device, list(copies)))

    def host(self, worker: str = "w", *models: str) -> None:
        """A worker joins that has its models ready, and is welcomed."""
        self.join(worker, *(copy(model) for model in models or ("m",)))
        self.wake()

    def reports(self, worker: str, report: Copy) -> None:
        self.hears(worker, CopyState(report))

    def answers(self, worker: str, batch: Batch, code: int = OK, compute_us: int = 1000) -> None:
        """The worker is done with a batch: to each request "answer to" its tensors."""
        replies = [BatchReply(code, b"answer to " + r.tensors, {}) for r in batch.requests]
        self.result(worker, Result(batch.id, compute_us, replies))

    def result(self, worker: str, *results: Result) -> None:
        self.hears(worker, Results(list(results)))

    def alive(self, *workers: str) -> None:
        for worker in workers:
            self.hears(worker, Alive())

    def leaves(self, worker: str) -> None:
        self.hears(worker, Leave("told to"))

    def hears(self, worker: str, message: Any) -> None:
        self.handle(FromWorker(worker.encode(), message))

    # time

    def handle(self, event: Any) -> None:
        assert not self.scheduler.handle(event, self.now), "handle only notes; wake sends"

    def wake(self, after_s: float = 0.0) -> Sent:
        """Let time pass in one step, and wake."""
        self.now += after_s
        sent = Sent(self.scheduler.wake(self.now))
        self.scheduler.check()
        return sent

    def live(self, seconds: float, alive: Iterable[str] = ()) -> Sent:
        """Let time pass in small steps; the workers named say that they live."""
        alive, until, sent = list(alive), self.now + seconds, Sent()
        while self.now < until - 1e-9:
            self.alive(*alive)
            sent.actions += self.wake(min(0.05, until - self.now)).actions
        return sent

    @property
    def outcomes(self) -> dict[str, int]:
        return dict(self.scheduler.stats[("m", "1")].outcomes)
