"""The worker's mind, pure: its place on the broker's roster, and what it owes.

Speaks the three verbs of the design: `handle(event, now)`, `wake(now)`, `next_wake()`.

Knows: whether it is on the roster, its copies, the batches it holds. Must not know: sockets, clocks,
torch, threads; it gives orders to a runner and gets reports back.

How it works. The worker says `Join` until it is welcomed. It is thrown off the roster by a broker that was
started anew (which knows nobody) or that lost patience, and then joins again with the copies it has, so that
nothing is loaded twice. A copy may change while a `Join` is on its way: what changed before the `Welcome` is
said again after it. Orders go to the runner in the order in which they came. Reports are collected, and leave
in one message in the next `wake`. Pieces of replies leave before results; when too many wait for a broker
that takes nothing, the rest of such a reply is refused, and so is its outcome.

A batch that it held when it left the roster is run to its end all the same, unless it runs beside others and
can be dropped, which makes room for those that come. Its result is of no use, but says
that the worker touches the batch's shared memory no more: so it is sent, empty, to the broker that gave it.

Invariants: every batch is answered once, in the order in which the runner is through with them (`open` holds
those that are not answered), which is that in which they came but for models whose batches run beside one
another; a copy is in `copies` from its order to load until it is gone; one that shall go is in no `Join`.

Longer than 300 lines because the roster, the batches and the end need each other at every turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headway.errors import RemoteProtocolError, TooLarge, WorkerLost
from headway.messages import (
    MESSAGE_BYTES_MAX,
    REQUESTS_MAX,
    Alive,
    Batches,
    BatchReply,
    Copy,
    CopyState,
    Dismiss,
    Drops,
    Heartbeat,
    Join,
    Leave,
    Load,
    Message,
    Piece,
    Pieces,
    Result,
    Results,
    Unload,
    Welcome,
)
from headway.parts import PART_BYTES_MAX, parts
from headway.pieces import FRAMING_BYTES, WAITING_BYTES_MAX
from headway_worker.leases import Leases
from headway_worker.orders import Drop, Run
from headway_worker.unloads import Unloads

REPLY_BYTES_MAX = MESSAGE_BYTES_MAX - 65536
RETRY_S = 0.02


@dataclass(frozen=True)
class About:
    """What the worker says of itself when it joins. `facts`: see PROTOCOL.md, section 9."""

    name: str
    host: str
    pid: int
    device: str
    facts: dict[str, Any] = field(default_factory=dict)


class Drain(NamedTuple):
    """Finish what was begun, take nothing new, and exit."""

    reason: str


class Unsent(NamedTuple):
    """The socket would not take this message now."""

    message: Message


class Send(NamedTuple):
    """Send this to the broker; hand it back as `Unsent` if that would block."""

    message: Message


class Leaving(NamedTuple):
    """The process shall end. `stuck`: its batch outlived its lease, and the runner cannot be waited for."""

    reason: str
    stuck: bool


Event = Message | Result | Copy | Piece | Drain | Unsent
Action = Send | Run | Drop | Load | Unload | Leaving


class Session:
    """One worker's side of its connection to the broker."""

    def __init__(self, about: About, join_s: float = 0.5, drain_s: float = 30.0) -> None:
        self.copies: dict[tuple[str, str], Copy] = {}
        self.open: dict[int, None] = {}  # batches not answered, in order
        self.leases = Leases()
        self._unloads = Unloads()
        self._about = about
        self._join_s = join_s
        self._drain_s = drain_s
        self._joined = False
        self._broker = b""
        self._beat_s = join_s
        self._beat_at = -math.inf
        self._leave_by = math.inf
        self._unsaid: dict[tuple[str, str], Copy] = {}  # changed since it left the roster
        self._results: list[Result] = []
        self._pieces: list[Piece] = []
        self._pieces_bytes = 0
        self._torn: set[tuple[int, int]] = set()  # replies that lack a piece, by batch and place
        self._given_up: dict[int, None] = {}  # batches that were open when it left the roster
        self._finished: list[Result] = []  # of such batches
        self._outbox: list[Message] = []
        self._blocked_until = -math.inf

    @property
    def joined(self) -> bool:
        """Whether it is on the broker's roster, for all it knows."""
        return self._joined

    @property
    def draining(self) -> bool:
        return self._leave_by < math.inf

    def handle(self, event: Event, now: float) -> list[Action]:
        """Note what happened. Raises: RemoteProtocolError for a message that workers do not get."""
        match event:
            case Result():
                self.leases.end(event.batch, now)
                self._note_result(event)
            case Copy():
                self._note_copy(event)
            case Piece():
                self.leases.renew(event.batch, now)
                self._note_piece(event)
            case Batches(batches=batches):
                for batch in batches:
                    self.open[batch.id] = None
                    self.leases.add(batch.id, batch.lease_ms / 1000, now)
                return [Run(batch, now) for batch in batches]
            case Drops(batches=ids):
                return [Drop(id) for id in ids if id in self.open]
            case Load() | Unload():
                return [self._order(event)]
            case Welcome() | Heartbeat():
                return self._meet(event, now)
            case Dismiss():
                return self._dismissed(event, now)
            case Unsent(message):
                self._take_back(message, now)
            case Drain(reason):
                return self._drain(reason, now)
            case _:
                raise RemoteProtocolError(f"a worker gets no {type(event).__name__}")
        return []

    def wake(self, now: float) -> list[Action]:
        """Everything there is to send; the end, if the time to drain is over."""
        if now >= self._leave_by:
            return [Leaving("the time to drain is over", stuck=bool(self.open))]
        if now < self._blocked_until:
            return []
        if now >= self._beat_at:
            self._beat_at = now + (self._beat_s if self._joined else self._join_s)
            self._outbox.append(Alive() if self._joined else self._join())
        if not (self._outbox or self._results or self._pieces):
            return []
        messages, self._outbox = self._outbox, []
        if self._pieces:
            pieces, self._pieces, self._pieces_bytes = self._pieces, [], 0
            messages += [Pieces(part) for part in parts(pieces, _piece_size)]
        if self._results:
            results, self._results = self._results, []
            messages += [Results(part) for part in parts(results, _size)]
        return [Send(message) for message in messages]

    def next_wake(self) -> float:
        """Call `wake` no later than this; -inf for at once."""
        if self._outbox or self._results or self._pieces:
            return self._blocked_until
        return min(max(self._beat_at, self._blocked_until), self._leave_by)

    @property
    def _loads(self) -> bool:
        return any(copy.state == "loading" for copy in self.copies.values())

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        assert all(key == (copy.model, copy.version) for key, copy in self.copies.items())
        waiting = {result.batch for result in self._results}
        assert not waiting & set(self.open), "a batch is answered and still open"

    def _join(self) -> Join:
        about = self._about
        copies = [copy for key, copy in self.copies.items() if key not in self._unloads]
        return Join(about.name, about.host, about.pid, about.device, copies, about.facts)

    def _note_result(self, result: Result) -> None:
        if result.batch in self.open:
            del self.open[result.batch]
            self._results += _in_parts(self._mended(result) if self._torn else result)
        elif self._given_up.pop(result.batch, result) is None:  # all it says: we are through with its slots
            (self._results if self._joined else self._finished).append(_empty(result))

    def _note_piece(self, piece: Piece) -> None:
        """Pieces of batches that nobody waits for are dropped."""
        if piece.batch not in self.open or (piece.batch, piece.place) in self._torn:
            return
        if self._pieces_bytes + _piece_size(piece) > WAITING_BYTES_MAX:
            self._torn.add((piece.batch, piece.place))
            return
        self._pieces.append(piece)
        self._pieces_bytes += _piece_size(piece)

    def _mended(self, result: Result) -> Result:
        """The result, with errors for replies of which a piece could not be sent."""
        places = {place for batch, place in self._torn if batch == result.batch}
        self._torn -= {(result.batch, place) for place in places}
        error = BatchReply(WorkerLost.code, "the broker took no pieces of the reply for too long", {})
        replies = [error if place in places else reply for place, reply in enumerate(result.replies)]
        return result._replace(replies=replies)

    def _note_copy(self, copy: Copy) -> None:
        key = (copy.model, copy.version)
        is_current, is_told = self._unloads.note(key, copy.state)
        if is_current and copy.state == "gone":
            self.copies.pop(key, None)
        elif is_current:
            self.copies[key] = copy
        if not is_told:
            return
        if self._joined:
            self._outbox.append(CopyState(copy))
        else:
            self._unsaid[key] = copy

    def _order(self, order: Load | Unload) -> Load | Unload:
        key = (order.model, order.version)
        if isinstance(order, Load):
            self._unloads.load(key)
            self.copies[key] = Copy(*key, "loading", "", {})
        else:
            self._unloads.unload(key)
        return order

    def _meet(self, message: Welcome | Heartbeat, now: float) -> list[Action]:
        if isinstance(message, Welcome):
            self._joined = True
            if message.broker != self._broker:
                self._given_up.clear()
                self._finished.clear()
            self._broker = message.broker
            self._beat_s = message.heartbeat_ms / 1000 / 2  # twice as often as it must be
            self._beat_at = now + self._beat_s
            self._outbox += [CopyState(copy) for copy in self._unsaid.values()]
            self._unsaid.clear()
            self._results += self._finished
            self._finished.clear()
        elif self._joined and message.broker != self._broker:
            return self._off_the_roster()
        return []

    def _off_the_roster(self) -> list[Action]:
        """Join again, unless it wanted to go. What was collected for the old broker means nothing to the
        new one."""
        if self.draining:
            return [Leaving("off the roster while draining", stuck=bool(self.open))]
        self._joined = False
        self._beat_at = -math.inf
        drops: list[Action] = [Drop(batch) for batch in self.open]
        self._given_up.update(self.open)
        self.open.clear()
        self._unsaid.clear()
        self._unloads.off_the_roster()
        self._finished += [_empty(result) for result in self._results if result.done]
        self._results.clear()
        self._pieces.clear()
        self._pieces_bytes = 0
        self._torn.clear()
        self._outbox.clear()
        return drops

    def _dismissed(self, message: Dismiss, now: float) -> list[Action]:
        if message.final:
            return [Leaving(message.reason, stuck=bool(self.open) or (self._loads and not self.draining))]
        return self._off_the_roster()

    def _drain(self, reason: str, now: float) -> list[Action]:
        if not self._joined:
            return [Leaving(reason, stuck=bool(self.open))]
        if not self.draining:
            self._leave_by = now + self._drain_s
            self._outbox.append(Leave(reason))
        return []

    def _take_back(self, message: Message, now: float) -> None:
        """No connection: keep what must not be lost, forget heartbeats (the next is due soon)."""
        self._blocked_until = now + RETRY_S
        if isinstance(message, Results):
            self._results += message.results  # in order: a batch's last part says that it is the last
        elif isinstance(message, Pieces):
            self._pieces += message.pieces
            self._pieces_bytes += sum(map(_piece_size, message.pieces))
        elif not isinstance(message, (Alive, Join)):
            self._outbox.append(message)
        if isinstance(message, Join):
            self._beat_at = self._blocked_until  # the connection of a new process takes a moment


def _empty(result: Result) -> Result:
    return Result(result.batch, 0, [])


def _in_parts(result: Result) -> list[Result]:
    """A result as one or more, each small enough for a message."""
    if _size(result) <= PART_BYTES_MAX and len(result.replies) <= REQUESTS_MAX:
        return [result]
    replies = [_bounded(reply) for reply in result.replies]
    made: list[Result] = []
    for part in parts(replies, _reply_size):
        first = made[-1].first + len(made[-1].replies) if made else 0
        made.append(Result(result.batch, result.compute_us, part, first, 0))
    last = made.pop() if made else result
    return [*made, last._replace(done=1)]


def _bounded(reply: BatchReply) -> BatchReply:
    if len(reply.content) <= REPLY_BYTES_MAX:
        return reply
    size = f"a reply of {len(reply.content)} bytes is over the limit of {REPLY_BYTES_MAX}"
    return BatchReply(TooLarge.code, size, {})


def _reply_size(reply: BatchReply) -> int:
    return len(reply.content)


def _piece_size(piece: Piece) -> int:
    return FRAMING_BYTES + len(piece.content)


def _size(result: Result) -> int:
    return sum([len(reply.content) for reply in result.replies])
