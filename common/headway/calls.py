"""The caller's side of the wire, pure: what is open, what to send, what came of it.

Speaks the three verbs of the design:

    handle(event, now) -> actions     a call starts, is abandoned, a message came, a send was refused
    wake(now)          -> actions     time has passed; everything there is to send, coalesced
    next_wake()        -> float|None  call `wake` no later than this (-inf: at once)

Knows: open calls, deadlines, the broker's nonce. Must not know: sockets, clocks, threads, numpy.

How it works. `handle(Start)` only notes a call; `wake` puts all noted calls into one `Requests`. So a
loop that drains its events before it wakes sends one message however many calls were started. While
calls are open the broker is pinged every `ping_s`; its Heartbeat carries a nonce, and a new nonce means
that the broker was started anew and knows nothing: every open call is sent again, with what is left of
its time. Nothing is asked of a broker before its nonce is known: not at first, and not after a send was
refused, for the connection may be another one then, and the broker too. So it is known who got it, and no
request runs twice because the caller could not tell whether the broker that it met is the one that it had
asked.

A call whose reply may come in pieces (`stream`) gets an `Advance` for each before its outcome. It is sent
again as long as none has come; after that a new broker means `WorkerLost`. Pieces and outcomes of an attempt
that is over are dropped: messages of two brokers may be read in any order.

A call with slots in shared memory ends in a `Release` besides, when its slots may be used again.

Invariants: every started call is settled exactly once: by the broker's reply, by `DeadlineExceeded` at
most `grace_s` after its deadline, or by `BrokerUnreachable`; a reply to a settled call is dropped. No piece
comes after the outcome, and all that a call gets is of one attempt. A call
with slots is released exactly once, not before it is settled or abandoned (unless the caller leaves).

Over 300 lines: it is one state, and what `held` decides by itself is there already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headway.errors import (
    BrokerUnreachable,
    DeadlineExceeded,
    HeadwayError,
    RemoteProtocolError,
    WorkerLost,
    error_of,
)
from headway.held import Held
from headway.messages import (
    OK,
    TIMEOUT_MS_MAX,
    Answer,
    Bye,
    Cancels,
    Command,
    Heartbeat,
    Message,
    Ping,
    Query,
    Reclaims,
    Released,
    Replies,
    Reply,
    Request,
    Requests,
)
from headway.parts import parts
from headway.pieces import ATTEMPT, MORE
from headway.refs import HELD

FRAMING_BYTES = 1200  # the most that a request takes beside options and tensors


@dataclass(frozen=True)
class CallTimes:
    """When to give up, in seconds."""

    ping_s: float = 0.25
    grace_s: float = 0.5  # the broker answers at the deadline; this is how much later we do it ourselves
    retry_s: float = 0.02  # between attempts to send while there is no connection
    unreachable_s: float = 10.0  # a broker's restart is a pause; a longer silence is an outage
    outage_s: float = 1.0  # patience while an outage is known
    orphan_s: float = 120.0  # after a broker's restart slots that were sent before are not used for so long


@dataclass(slots=True)
class Call:
    """One open call: a request when `query` is empty, else a question to the broker; with `command`, a token
    and arguments, the command of that name.

    `options_bytes` is about what the options take in a message. `slots`: its options refer to slots.
    `orphan`: a broker that is gone was sent it. `stream`: its reply may come in pieces; `begun`: one has
    come.
    """

    id: int
    deadline: float
    model: str = ""
    version: str = ""
    rows: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    tensors: bytes = b""
    query: str = ""
    command: tuple[str, dict[str, Any]] | None = None
    attempt: int = 0
    sent: bool = False
    options_bytes: int = 0
    slots: bool = False
    orphan: bool = False
    stream: bool = False
    begun: bool = False


class Abandon(NamedTuple):
    """The caller does not wait for this id any more."""

    id: int


class Unsent(NamedTuple):
    """The socket would not take this message now: nobody is connected, or the connection is another one than
    for the last message, or the pipe is full; or one before it was refused."""

    message: Message


class Send(NamedTuple):
    """Send this to the broker; hand it back as `Unsent` if that would block."""

    message: Message


class Settle(NamedTuple):
    """A call's one outcome: a `Reply`, an `Answer`'s body, or an error to raise."""

    id: int
    outcome: Reply | dict[str, Any] | HeadwayError


class Advance(NamedTuple):
    """A piece of a call's reply; its outcome is to come."""

    id: int
    reply: Reply


class Release(NamedTuple):
    """Nobody touches the slots of this call any more."""

    id: int


Event = Call | Abandon | Unsent | Message
Action = Send | Settle | Advance | Release


class Calls:
    """All open calls of one caller."""

    def __init__(self, times: CallTimes | None = None) -> None:
        self._times = times or CallTimes()
        self.refused = 0  # messages that came back: nothing that `wake` gave before is to be sent any more
        self._open: dict[int, Call] = {}
        self._fresh: list[Call] = []  # to be sent, of a broker that is known
        self._held = Held(self._times.orphan_s)
        self._cancels: list[int] = []
        self._broker = b""
        self._is_met = False  # it has said that it is there, since the latest send that was refused
        self._outage = False
        self._blocked = False  # the latest send was refused, and nothing was heard since
        self._patient_until = -math.inf  # silence up to here is no outage
        self._ping_at = -math.inf
        self._blocked_until = -math.inf
        self._earliest = math.inf  # no open call's deadline is before this

    def __len__(self) -> int:
        return len(self._open)

    @property
    def held(self) -> int:
        """How many calls have their outcome, and their slots not back."""
        return len(self._held)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Note what happened. Raises: RemoteProtocolError for a message that callers do not get."""
        match event:
            case Replies(replies=replies):
                self._hear(now)
                return self._answered(replies, now)
            case Call():
                self.start(event, now)
            case Heartbeat(broker=broker):
                self._hear(now)
                return self._meet(broker, now)
            case Released(broker=broker, ids=ids):
                self._hear(now)
                return [*self._meet(broker, now), *(Release(id) for id in self._held.release(ids))]
            case Answer(id=id, body=body):
                self._hear(now)
                call = self._open.get(id)
                if call and call.query:  # a request that got one is still owed its reply
                    del self._open[id]
                    return [Settle(id, body)]
            case Abandon(id=id):
                return self._abandon(id, now)
            case Unsent(message=message):
                self._take_back(message, now)
            case _:
                raise RemoteProtocolError(f"a caller gets no {type(event).__name__}")
        return []

    def start(self, call: Call, now: float) -> None:
        """As `handle` of it, which has nothing to do at once."""
        if not self._open:  # silence counts from here: nobody listened while nothing was open
            self._patient_until = now + (self._times.outage_s if self._outage else self._times.unreachable_s)
        self._open[call.id] = call
        if self._is_met:
            self._fresh.append(call)
        if call.deadline < self._earliest:
            self._earliest = call.deadline

    def wake(self, now: float) -> list[Action]:
        """Everything there is to send, and everything whose time is over."""
        actions: list[Action] = []
        if now >= self._earliest:
            actions += self._expire(now)
        if self._open and now >= self._patient_until:
            actions += self._give_up(now)  # before anything is sent that nobody would wait for
        if now >= self._blocked_until:
            actions += self._unsent(now)
        if self._held:
            actions += [Release(id) for id in self._held.due(now)]
        if self._open and now >= self._ping_at:
            self._ping_at = now + self._times.ping_s
            actions.append(Send(Ping()))
        return actions

    def next_wake(self) -> float | None:
        """None: nothing is open, sleep until an event."""
        if self._fresh or self._cancels or self._held.hurry:
            return self._blocked_until
        wake = min(self._ping_at, self._earliest) if self._open else math.inf
        if self._held:
            wake = min(wake, max(self._held.next_wake(), self._blocked_until))
        return wake if wake < math.inf else None

    def leave(self) -> list[Action]:
        """What to send, and what to settle, when the caller closes."""
        actions: list[Action] = [Settle(id, BrokerUnreachable("the client was closed")) for id in self._open]
        self._open.clear()
        self._fresh.clear()
        self._cancels.clear()
        self._held = Held(self._times.orphan_s)
        return [*actions, Send(Bye())]

    def _hear(self, now: float) -> None:
        self._outage = False
        self._blocked = False
        self._patient_until = now + self._times.unreachable_s

    def _limit(self, call: Call) -> float:
        return call.deadline + (self._times.grace_s if call.sent else 0.0)

    def _answered(self, replies: list[Reply], now: float) -> list[Action]:
        actions: list[Action] = []
        for reply in replies:
            if MORE in reply.meta and reply.code == OK:
                actions += self._begun(reply)
                continue
            call = self._open.get(reply.id)
            if call and call.stream and _is_old(reply, call):
                continue
            if call:
                del self._open[call.id]
                actions.append(Settle(reply.id, reply if reply.code == OK else _error_of(reply)))
            if not call or call.slots:
                actions += self._let_go(call, reply, now)
        return actions

    def _begun(self, piece: Reply) -> list[Action]:
        call = self._open.get(piece.id)
        if call is None or not call.stream or _is_old(piece, call):
            return []
        call.begun = True
        return [Advance(call.id, piece)]

    def _let_go(self, call: Call | None, reply: Reply, now: float) -> list[Action]:
        """What a reply says of its request's slots. (One to a call that was abandoned says it too.)"""
        held = reply.meta.get(HELD)
        if call is None:
            return [] if held else [Release(id) for id in self._held.release([reply.id])]
        if call.orphan:
            self._held.quarantine(call.id, now)
        elif held:
            self._held.wait(call.id, now, ask=False)
        else:
            return [Release(call.id)]
        return []

    def _abandon(self, id: int, now: float) -> list[Action]:
        call = self._open.pop(id, None)
        if call is None:
            return []
        if call.slots and not call.sent and not call.orphan:
            return [Release(id)]
        if call.slots and not call.orphan:
            self._held.wait(id, now, ask=True)
        elif call.sent:
            self._cancels.append(id)
        if call.orphan:
            self._held.quarantine(id, now)
        return []

    def _meet(self, broker: bytes, now: float) -> list[Action]:
        """It is known who is there: perhaps a broker that knows nothing of what was sent before."""
        if broker == self._broker and self._is_met:
            return []
        is_new, self._broker, self._is_met = broker != self._broker, broker, True
        for call in self._open.values() if is_new else ():
            if call.sent:
                call.sent = False
                call.attempt += 1
                call.orphan = call.slots
        self._fresh = [call for call in self._open.values() if not call.sent]
        if not is_new:
            return []
        self._held.new_broker(now)
        return self._fail_begun(now)

    def _fail_begun(self, now: float) -> list[Action]:
        """A reply of which the caller has a part cannot begin anew."""
        actions: list[Action] = []
        for id in [call.id for call in self._open.values() if call.begun]:
            actions.append(Settle(id, WorkerLost("the broker was started anew after the reply had begun")))
            actions += self._abandon(id, now)
        return actions

    def _take_back(self, message: Message, now: float) -> None:
        """No connection, or another one: keep requests and questions until it is known who is there, and ask
        that soon."""
        self.refused += 1
        self._blocked = True
        self._is_met = False
        self._blocked_until = self._ping_at = now + self._times.retry_s
        self._fresh.clear()
        if isinstance(message, Requests):
            ids = [request.id for request in message.requests]
        elif isinstance(message, Query | Command):
            ids = [message.id]
        else:
            return  # a broker that is not there has nothing to cancel
        for id in ids:
            call = self._open.get(id)
            if call and call.sent:
                call.sent = False

    def _unsent(self, now: float) -> list[Action]:
        fresh = [call for call in self._fresh if call.id in self._open]
        self._fresh = []
        actions: list[Action] = []
        if self._cancels:
            actions += [Send(Cancels(part)) for part in parts(self._cancels, lambda id: 0)]
            self._cancels = []
        if self._held:
            actions += [Send(Reclaims(part)) for part in parts(self._held.asks(now), lambda id: 0)]
        for call in fresh:
            call.sent = True
        for part in parts([call for call in fresh if not call.query], _size):
            actions.append(Send(Requests([_request(call, now) for call in part])))
        return actions + [Send(_question(call)) for call in fresh if call.query]

    def _expire(self, now: float) -> list[Action]:
        late = [call for call in self._open.values() if now >= self._limit(call)]
        actions: list[Action] = [Settle(call.id, self._late_error(call)) for call in late]
        for call in late:
            actions += self._abandon(call.id, now)
        self._earliest = min((self._limit(c) for c in self._open.values()), default=math.inf)
        return actions

    def _late_error(self, call: Call) -> HeadwayError:
        if not call.sent and self._blocked:
            return BrokerUnreachable("no broker could be reached in the time the request had")
        if not call.sent:
            return DeadlineExceeded("the request's time ran out before it was sent")
        return DeadlineExceeded("the request's time ran out and the broker did not answer")

    def _give_up(self, now: float) -> list[Action]:
        self._outage = True
        actions: list[Action] = []
        for id in list(self._open):
            actions.append(Settle(id, BrokerUnreachable("the broker does not answer")))
            actions += self._abandon(id, now)
        self._earliest = math.inf
        return actions


def _error_of(reply: Reply) -> HeadwayError:
    retry_after_ms = reply.meta.get("retry_after_ms")
    after_s = None
    if type(retry_after_ms) is int and retry_after_ms >= 0:
        after_s = retry_after_ms / 1000
    error = error_of(reply.code, str(reply.content), after_s)
    error.meta = reply.meta
    return error


def _is_old(reply: Reply, call: Call) -> bool:
    """Whether it is of an attempt that is over; errors are good for any."""
    return reply.code == OK and reply.meta.get(ATTEMPT, 0) != call.attempt


def _size(call: Call) -> int:
    return FRAMING_BYTES + call.options_bytes + len(call.tensors)


def _question(call: Call) -> Query | Command:
    if call.command is None:
        return Query(call.id, call.query)
    token, arguments = call.command
    return Command(call.id, token, call.query, arguments)


def _request(call: Call, now: float) -> Request:
    left_ms = int(min(max((call.deadline - now) * 1000, 0.0), TIMEOUT_MS_MAX))
    return Request(
        call.id,
        call.model,
        call.version,
        left_ms,
        call.attempt,
        call.rows,
        call.options,
        call.tensors,
    )
