"""The operator's commands: who may give them, what each changes, and when it is answered.

Pure. Knows: the verbs of PROTOCOL.md, section 9. Must not know: how copies are placed, traffic moved (that is
`steering`), sockets, files.

A verb changes what is ordered, and returns a *look*: a function that gives the answer, None while the
command still waits, or raises what is to be answered. A command that does not wait is looked at once. One
that reads the store first goes on when the store was read.

Longer than 300 lines because it has all the verbs, each a few lines long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, NamedTuple

from headway.errors import (
    DeadlineExceeded,
    HeadwayError,
    InvalidInput,
    NotReady,
    Unauthorized,
    UnknownModel,
)
from headway.messages import Answer, Command
from headway_broker.arguments import Arguments
from headway_broker.board import Board
from headway_broker.catalog import Changes, Key
from headway_broker.events import ReadStore, StoreRead
from headway_broker.hosts import Hosts
from headway_broker.state import State
from headway_broker.steering import Steering

Look = Callable[[], dict[str, Any] | None]
WAIT_MS = 60_000
SETTLE_S = 2.0  # before "there is no place for it" is the answer: a worker may be on its way


@dataclass(frozen=True)
class _Waiting:
    """A command that has no answer yet."""

    caller: bytes
    id: int
    until: float
    look: Look


class _Order(NamedTuple):
    """A command on its way through its verb."""

    caller: bytes
    id: int
    given: Arguments
    now: float
    until: float


class _OnRead(NamedTuple):
    """A command that goes on when the store was read."""

    order: _Order
    go_on: Callable[[Changes, dict[Key, str]], Look]


class Commands:
    """One broker's. `answers` are to be sent: the caller, and the answer."""

    def __init__(self, board: Board, steering: Steering, hosts: Hosts, state: State, token: str) -> None:
        self.answers: list[tuple[bytes, Answer]] = []
        self._board = board
        self._steering = steering
        self._hosts = hosts
        self._state = state
        self._token = token
        self._waiting: list[_Waiting] = []
        self._on_read: list[_OnRead] = []
        self._is_reading = False
        self._now = 0.0
        self._verbs: dict[str, Callable[[_Order], Look | None]] = {
            "describe": self._describe,
            "register": self._register,
            "unregister": self._unregister,
            "rescan": self._rescan,
            "scale": self._scale,
            "default": self._default,
            "split": self._split,
            "drain": self._drain,
            "workers": self._workers,
            "state": self._document,
        }

    @property
    def waits(self) -> bool:
        """Whether a command has no answer yet."""
        return bool(self._waiting)

    def handle(self, caller: bytes, command: Command, now: float) -> None:
        """Obey, and answer now or later."""
        self._now = now
        try:
            if not self._token or not compare_digest(command.token.encode(), self._token.encode()):
                raise Unauthorized("a command needs the management token, see the broker's state directory")
            verb = self._verbs.get(command.verb)
            if verb is None:
                raise InvalidInput(f"{command.verb!r} is not a command; there are {', '.join(self._verbs)}")
            given = Arguments(command.verb, command.arguments)
            until = now + (given.count("timeout_ms", WAIT_MS, 1 << 31) or 0) / 1000
            if look := verb(_Order(caller, command.id, given, now, until)):
                self._settle(_Waiting(caller, command.id, until, look), now)
        except HeadwayError as error:
            self._refuse(caller, command.id, error)

    def look(self, now: float) -> None:
        """See what those that wait have come to."""
        self._now = now
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._settle(each, now)

    def store_read(self, read: StoreRead, now: float) -> None:
        """The model store was read: take what is new, and go on with those that waited for it."""
        self._now = now
        changes = Changes([], [], [])
        if not read.error:
            changes = self._take(read, now)
        if not read.asked:  # it may have begun before they asked
            return
        self._is_reading = False
        on_read, self._on_read = self._on_read, []
        for each in on_read:
            try:
                if read.error:
                    raise NotReady(read.error)
                look = each.go_on(changes, read.broken)
                self._settle(_Waiting(each.order.caller, each.order.id, each.order.until, look), now)
            except HeadwayError as error:
                self._refuse(each.order.caller, each.order.id, error)

    # ---- verbs ----

    def _describe(self, order: _Order) -> Look:
        model, version = order.given.text("model", ""), order.given.text("version", "")
        order.given.done()
        models = [m for m in self._state.models() if model in ("", m["name"])]
        found = [m for m in models if version in ("", m["version"])]
        if model and not found:
            raise UnknownModel(f"there is no {model}{'/' if version else ''}{version}")
        return lambda: {"models": found}

    def _document(self, order: _Order) -> Look:
        order.given.done()
        return lambda: self._state.document(order.now)

    def _rescan(self, order: _Order) -> None:
        order.given.done()
        self._read_first(_OnRead(order, _told))

    def _register(self, order: _Order) -> None:
        path, wait = order.given.text("path"), order.given.flag("wait")
        order.given.done()
        model, _, version = path.strip("/").partition("/")
        if not model or "/" in version or ".." in (model, version):
            raise InvalidInput(
                f"register: path must be NAME or NAME/VERSION in the model store, not {path!r}"
            )
        self._read_first(_OnRead(order, lambda changes, _: self._registered((model, version), wait, changes)))

    def _unregister(self, order: _Order) -> Look:
        model, version = order.given.text("model"), order.given.text("version", "")
        order.given.done()
        gone = self._board.catalog.unregister(model, version)
        self._steering.changed(order.now)
        return lambda: {"model": model, "versions": gone}

    def _scale(self, order: _Order) -> Look:
        model, version, wait = (
            order.given.text("model"),
            order.given.text("version", ""),
            order.given.flag("wait"),
        )
        least = order.given.count("min")
        most = order.given.count("max", least)
        order.given.done()
        assert least is not None and most is not None
        if most < least:
            raise InvalidInput(f"scale: max must be at least min, which is {least}, not {most}")
        key = self._board.catalog.resolve(model, version or self._board.catalog.default(model) or "")
        self._board.catalog.set_limits(key, least, most)
        self._steering.changed(order.now)
        self._steering.replan(order.now)
        answer = {"model": key[0], "version": key[1], "min": least, "max": most}
        return lambda: self._scaled(key, answer, least if wait else 0, order.now)

    def _default(self, order: _Order) -> Look:
        model, version, wait = (
            order.given.text("model"),
            order.given.text("version"),
            order.given.flag("wait"),
        )
        order.given.done()
        self._board.catalog.set_default(model, version)
        return self._rerouted(order, {"model": model, "version": version}, wait)

    def _split(self, order: _Order) -> Look:
        model, weights, wait = (
            order.given.text("model"),
            order.given.weights("weights"),
            order.given.flag("wait"),
        )
        order.given.done()
        self._board.catalog.set_split(model, weights)
        return self._rerouted(order, {"model": model, "weights": weights}, wait)

    def _rerouted(self, order: _Order, answer: dict[str, Any], wait: bool) -> Look:
        """Traffic was ordered elsewhere."""
        self._steering.changed(order.now)
        return lambda: self._moved(answer["model"], answer, wait)

    def _drain(self, order: _Order) -> Look:
        name, wait = order.given.text("worker"), order.given.flag("wait")
        order.given.done()
        worker = next(iter(self._board.roster.named(name)), None)
        if worker is None:
            raise InvalidInput(f"drain: there is no worker {name!r}")
        self._steering.drain(worker, order.now)
        who = worker.identity

        def look() -> dict[str, Any] | None:
            gone = self._board.roster.get(who) is None
            return {"worker": name, "gone": gone} if gone or not wait else None

        return look

    def _workers(self, order: _Order) -> Look:
        host, count = order.given.text("host"), order.given.count("count", None)
        order.given.done()
        self._hosts.order(host, count, order.now)
        self._steering.save()
        return lambda: {"host": host, "count": count}

    # ---- inside ----

    def _read_first(self, after: _OnRead) -> None:
        self._on_read.append(after)
        if not self._is_reading:
            self._is_reading = True
            self._steering.outbox.append(ReadStore())

    def _take(self, read: StoreRead, now: float) -> Changes:
        catalog = self._board.catalog
        if catalog.specs and not read.specs and not read.broken:
            self._steering.note("model store is empty", reason="not believed: all versions stay as they are")
            return Changes([], [], [])
        before = dict(catalog.broken)
        changes = catalog.look(read.specs, read.broken)
        if any(changes) or catalog.broken != before:
            names = {"added": changes.added, "changed": changes.changed, "gone": changes.gone}
            self._steering.note("model store read", **{k: [*map("/".join, v)] for k, v in names.items()})
            self._steering.changed(now)
        return changes

    def _registered(self, key: Key, wait: bool, changes: Changes) -> Look:
        model, version = key
        if key in changes.changed:
            raise InvalidInput(
                f"{model}/{version} is registered, and its model.toml has changed since: give it a new "
                "version, or unregister it first"
            )
        versions = self._board.catalog.register(model, version)
        self._steering.changed(self._now)
        self._steering.forget_failures(model, self._now)
        answer = {"model": model, "versions": versions}
        mine = [(model, v) for v in ([version] if version else versions)]
        copies = self._board.copies
        return lambda: (
            answer if not wait or all(self._is_up(k, min(copies.get(k, 1), 1)) for k in mine) else None
        )

    def _scaled(self, key: Key, answer: dict[str, Any], least: int, since: float) -> dict[str, Any] | None:
        ready = self._board.ready(key)
        if least and not self._is_up(key, least):
            if self._now >= since + SETTLE_S and not self._board.loading(key):
                self._refuse_short(key)
            return None
        short = self._steering.plan.short.get(key)
        return {**answer, "ready": ready, **({"short": short} if short else {})}

    def _moved(self, model: str, answer: dict[str, Any], wait: bool) -> dict[str, Any] | None:
        catalog = self._board.catalog
        if model not in catalog.routes:
            raise NotReady(f"model {model!r} has no version that could serve any more")
        serving = model not in catalog.moving
        if wait and not serving:
            for version in catalog.wanted(model):
                self._is_up((model, version), 1)
            return None
        return {**answer, "serving": serving}

    def _is_up(self, key: Key, copies: int) -> bool:
        """Whether so many copies serve. Raises: NotReady if there is no hope."""
        if not copies and key in self._board.catalog.specs:
            return not self._board.loading(key)
        reason = self._state.unservable(key) if key in self._board.catalog.specs else "it is not registered"
        if reason:
            raise NotReady(reason)
        return self._board.ready(key) >= copies and not self._board.loading(key)

    def _refuse_short(self, key: Key) -> None:
        """Raises: NotReady where there is no place, and none is on its way."""
        if (short := self._steering.plan.short.get(key)) and not self._hosts.coming:
            raise NotReady(
                f"{self._board.ready(key)} copies are ready, and there is no place for more: {short}"
            )

    def _settle(self, waiting: _Waiting, now: float) -> None:
        try:
            answer = waiting.look()
            if answer is not None:
                self.answers.append((waiting.caller, Answer(waiting.id, answer)))
            elif now >= waiting.until:
                raise DeadlineExceeded("ordered, but it takes longer than the command's time")
            else:
                self._waiting.append(waiting)
        except HeadwayError as error:
            self._refuse(waiting.caller, waiting.id, error)

    def _refuse(self, caller: bytes, id: int, error: HeadwayError) -> None:
        self.answers.append((caller, Answer(id, {"error": str(error), "code": error.code})))


def _told(changes: Changes, broken: dict[Key, str]) -> Look:
    names = {field: ["/".join(key) for key in keys] for field, keys in changes._asdict().items()}
    return lambda: {**names, "broken": {"/".join(key): reason for key, reason in broken.items()}}
