"""Every message of the wire, as plain tuples.

Knows: which messages exist, their numbers (`KINDS`), their fields in order, and the limits of each field.
Must not know: bytes (that is `wire`), sockets, clocks, what a tensor is.

Each message is a `NamedTuple` whose annotations say what a field may hold; `wire` builds its checks from
them and `PROTOCOL.md` describes them for other languages, so a field is written down once. A message is
a tuple because msgpack writes a tuple as an array without any conversion: a request costs two
microseconds inside a message, and a dataclass would double that.

Directions: callers (gateways and direct clients) talk to the broker's front, workers to its back.
Longer than 300 lines because it is a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

MESSAGE_BYTES_MAX = 1 << 26
REQUEST_BYTES_MAX = MESSAGE_BYTES_MAX - 65536  # the rest is for names, options and framing
REQUESTS_MAX = 1 << 16
TIMEOUT_MS_MAX = 24 * 3600 * 1000
BATCH_ROWS_MAX = 1 << 16
NAME_CHARS_MAX = 128
OPTIONS_MAX = 64


@dataclass(frozen=True)
class Uint:
    """A non-negative integer of at most `max`."""

    max: int


@dataclass(frozen=True)
class Text:
    """A UTF-8 string of at most `max` characters."""

    max: int


@dataclass(frozen=True)
class Blob:
    """Bytes, opaque to whoever passes them on."""

    max: int = MESSAGE_BYTES_MAX


@dataclass(frozen=True)
class Content:
    """Bytes, or a string in an error's reply."""

    max: int = MESSAGE_BYTES_MAX


@dataclass(frozen=True)
class Map:
    """A map with string keys, at most `max` of them."""

    max: int = OPTIONS_MAX


@dataclass(frozen=True)
class Many:
    """A list of at most `max` entries, each a message of type `of` or a field checked by it."""

    of: Any
    max: int = REQUESTS_MAX


Id = Annotated[int, Uint((1 << 63) - 1)]
Count = Annotated[int, Uint(BATCH_ROWS_MAX)]
TimeoutMs = Annotated[int, Uint(TIMEOUT_MS_MAX)]
Micros = Annotated[int, Uint((1 << 53) - 1)]
Flag = Annotated[int, Uint(1)]
Code = Annotated[int, Uint(255)]
Name = Annotated[str, Text(NAME_CHARS_MAX)]
Reason = Annotated[str, Text(1 << 16)]
Path = Annotated[str, Text(4096)]
Nonce = Annotated[bytes, Blob(32)]
Packed = Annotated[bytes, Blob()]
Options = Annotated[dict[str, Any], Map()]
Facts = Annotated[dict[str, Any], Map(4096)]


class Request(NamedTuple):
    """One request of a caller. `id` is unique among the caller's open requests.

    `version` "" means the default one. `timeout_ms` is what is left to live. `attempt` counts how often
    the caller sent it before. `rows` 0: the tensors are one example without a batch dimension;
    n > 0: every tensor has a leading dimension n. `tensors` is opaque to the broker.
    """

    id: Id
    model: Name
    version: Name
    timeout_ms: TimeoutMs
    attempt: Count
    rows: Count
    options: Options
    tensors: Packed


class Reply(NamedTuple):
    """The one outcome of a request: `code` 0 and packed tensors or a body, or an error's code and text; or,
    with `more` in its `meta`, a piece of it."""

    id: Id
    code: Code
    content: Annotated[bytes | str, Content()]
    meta: Options


class Copy(NamedTuple):
    """One model version in one worker. `state` is one of COPY_STATES, `detail` the error if it failed."""

    model: Name
    version: Name
    state: Name
    detail: Reason
    facts: Facts


class BatchRequest(NamedTuple):
    """A request inside a batch; its place in the list stands for its id."""

    timeout_ms: TimeoutMs
    rows: Count
    options: Options
    tensors: Packed


class Batch(NamedTuple):
    """What a worker runs in one go. It must be answered within `lease_ms` of its start."""

    id: Id
    model: Name
    version: Name
    lease_ms: TimeoutMs
    requests: Annotated[list[BatchRequest], Many(BatchRequest)]


class BatchReply(NamedTuple):
    """A request's outcome inside a result; its place in the list says which request."""

    code: Code
    content: Annotated[bytes | str, Content()]
    meta: Options


class Result(NamedTuple):
    """Outcomes of a batch, in the order of its requests, and how long the device was busy with it.

    Large ones come in parts: `first` is the place of the first outcome in the batch, and `done` is 1 in
    the last part.
    """

    batch: Id
    compute_us: Micros
    replies: Annotated[list[BatchReply], Many(BatchReply)]
    first: Count = 0
    done: Flag = 1


# caller -> broker


class Requests(NamedTuple):
    """New requests, or requests sent again after a broker's restart."""

    requests: Annotated[list[Request], Many(Request)]


class Cancels(NamedTuple):
    """Nobody waits for these any more."""

    ids: Annotated[list[int], Many(Uint((1 << 63) - 1))]


class Query(NamedTuple):
    """A question about the broker itself: `what` is one of QUERIES."""

    id: Id
    what: Name


class Ping(NamedTuple):
    """Are you there? Answered with a Heartbeat."""


class Bye(NamedTuple):
    """The caller leaves: everything it had open is cancelled."""


class Command(NamedTuple):
    """An order of the operator's, for whoever knows the management token: `verb` is one of VERBS. Answered by
    an Answer, at once or when what it waits for has happened."""

    id: Id
    token: Name
    verb: Name
    arguments: Facts


class Reclaims(NamedTuple):
    """Nobody waits for these any more, and their slots are wanted back: answered by Released."""

    ids: Annotated[list[int], Many(Uint((1 << 63) - 1))]


# broker -> caller


class Replies(NamedTuple):
    """Outcomes of requests, in no particular order."""

    replies: Annotated[list[Reply], Many(Reply)]


class Answer(NamedTuple):
    """The answer to the Query with the same id."""

    id: Id
    body: Facts


class Released(NamedTuple):
    """No worker that the broker knows of touches the slots of these any more."""

    broker: Nonce
    ids: Annotated[list[int], Many(Uint((1 << 63) - 1))]


# broker -> anyone


class Heartbeat(NamedTuple):
    """The broker lives. `broker` is a fresh nonce per start: a new one means that it knows nothing of us."""

    broker: Nonce


# worker -> broker


class Join(NamedTuple):
    """A worker introduces itself, with the copies it already has (after a broker's restart). `facts` say what
    its device offers; PROTOCOL.md lists them."""

    name: Name
    host: Name
    pid: Id
    device: Name
    copies: Annotated[list[Copy], Many(Copy, 4096)]
    facts: Facts = {}  # noqa: RUF012  (never changed)


class Alive(NamedTuple):
    """The worker's loop lives. (The broker's silence detector counts any message.)"""


class CopyState(NamedTuple):
    """A copy changed its state."""

    copy: Annotated[Copy, Copy]


class Results(NamedTuple):
    """Batches that are done."""

    results: Annotated[list[Result], Many(Result)]


class Piece(NamedTuple):
    """A part of a reply, sent before the rest of it is there: of the request at `place` in the batch."""

    batch: Id
    place: Count
    content: Annotated[bytes | str, Content()]
    meta: Options


class Pieces(NamedTuple):
    """Parts of replies to requests whose callers take them, in the order in which they were made."""

    pieces: Annotated[list[Piece], Many(Piece)]


class Leave(NamedTuple):
    """The worker wants to go: send nothing new, and a final Dismiss once nothing of it is open."""

    reason: Reason


# agent -> broker, at the workers' socket


class AgentWorker(NamedTuple):
    """A worker process of an agent's. `state` is one of AGENT_WORKER_STATES; `reason` says how it ended."""

    name: Name
    pid: Id
    device: Name
    state: Name
    reason: Reason


class AgentJoin(NamedTuple):
    """An agent introduces itself, with the workers that it has already. `facts` say what its host offers."""

    name: Name
    host: Name
    facts: Facts
    workers: Annotated[list[AgentWorker], Many(AgentWorker, 4096)]


class AgentReport(NamedTuple):
    """A worker process was started, is being stopped, or has ended."""

    worker: Annotated[AgentWorker, AgentWorker]


# broker -> agent


class StartWorker(NamedTuple):
    """Start a worker called `name` on `device`. `share`: percent of the device, 0 for no share of its own."""

    name: Name
    device: Name
    share: Count
    reason: Reason


class StopWorker(NamedTuple):
    """Stop the worker: let it finish what it has, then end it."""

    name: Name
    reason: Reason


# broker -> worker


class Welcome(NamedTuple):
    """The worker is on the roster; it shall send something at least every `heartbeat_ms`."""

    broker: Nonce
    heartbeat_ms: TimeoutMs


class Load(NamedTuple):
    """Load the model version in `folder`, then report its state."""

    model: Name
    version: Name
    folder: Path


class Unload(NamedTuple):
    """Free the copy."""

    model: Name
    version: Name


class Batches(NamedTuple):
    """Batches to run, in order."""

    batches: Annotated[list[Batch], Many(Batch)]


class Drops(NamedTuple):
    """Nobody waits for these batches any more. They are of models whose batches run beside one another; the
    worker leaves them as soon as it can, and answers them as ever."""

    batches: Annotated[list[int], Many(Uint((1 << 63) - 1))]


class Dismiss(NamedTuple):
    """The worker is not on the roster: join again, or exit when `final` is 1."""

    reason: Reason
    final: Flag


Message = (
    Requests | Cancels | Query | Ping | Bye | Reclaims | Command | Replies | Answer | Heartbeat | Released
    | Join | Alive | CopyState | Results | Leave | AgentJoin | AgentReport | Pieces | Welcome | Load | Unload
    | Batches | Dismiss | StartWorker | StopWorker | Drops
)  # fmt: skip

KINDS: dict[int, type[Any]] = {
    1: Requests,
    2: Cancels,
    3: Query,
    4: Ping,
    5: Bye,
    6: Reclaims,
    7: Command,
    16: Replies,
    17: Answer,
    18: Heartbeat,
    19: Released,
    32: Join,
    33: Alive,
    34: CopyState,
    35: Results,
    36: Leave,
    37: AgentJoin,
    38: AgentReport,
    39: Pieces,
    48: Welcome,
    49: Load,
    50: Unload,
    51: Batches,
    52: Dismiss,
    53: StartWorker,
    54: StopWorker,
    55: Drops,
}

COPY_STATES = ("loading", "ready", "failed", "gone")
AGENT_WORKER_STATES = ("running", "stopping", "ended")
QUERIES = ("models", "stats", "state")
VERBS = (
    "describe", "register", "unregister", "rescan", "scale", "default", "split", "drain", "workers", "state",
)  # fmt: skip
OK = 0
