"""The difference between what should be and what is, as orders to load and unload.

Knows: specs, what each worker has, how much memory there is and how much a copy needs. Must not know:
queues, messages, why a worker is what it is, how many copies a version should have.

The rules, the first before the second:

1. Never over memory: neither a worker's own nor its device's, which several workers may share. While a
   plan is carried out, one worker may still hold what it is to unload when another on its device loads
   already; so a device has room only for what fits beside both. (A worker obeys in the order it is told.)
2. What serves stays. Nothing moves but what was lost, is too much, or is not wanted.
3. At most one copy of a version in a worker. A copy that failed to load is not tried there again (but in
   another worker), until that worker is started anew or the version is wanted no more.
4. The copies of one version are on as many devices, and these on as many hosts, as there are.
5. A version with no copy comes before another's second one, and a large one before a small one.
6. What needs a known part of a known memory is packed: into workers that run something already and where
   it leaves the least room, but into one that has PACK copies, or as large a part of its memory taken as
   one in PACK, only when all others have as much. So ten small models share three devices, and not one
   while two have nothing to do. Where need or memory is not known, the worker with the fewest copies is
   taken, and of these the one with the most room.

7. No more copies in a worker than it says (`copies_max`). What failed to load, or is being unloaded, does
   not count: a worker does as it was told one after the other.

A worker that is leaving gets nothing; what it has does not count, so that it is loaded elsewhere, and is
not unloaded: it serves until its worker goes. It holds its memory, as does a copy in the state "unloading".

PERF: `python -m benchmarks.placing`. The broker's only thread stands still for a plan, so one that finds
nothing to do must be cheap: copies are counted by `Counter` (in C), and nothing else is built. Otherwise
suited workers are kept sorted in the order in which they would be taken (`_Line`), and each version looks
only at the first few of it. With 1,000 workers and 500 models of 40 copies, that is 5 ms where there is
nothing to do, 11 ms after a worker was lost, and 0.13 s to place all 20,000. Before, when each version
sorted all workers whether it lacked something or not, it was 0.4 s each time.

Longer than 300 lines because the sorted lines serve nothing but these rules, and the rules are only to be
understood with them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from typing import NamedTuple

from headway.models import ModelSpec
from headway_broker.catalog import Key

PACK = 4
LIVE = ("loading", "ready")


class Seat(NamedTuple):
    """A worker as placement sees it: its device, the state of each copy it has, its memory (0: nobody
    knows), and how many copies it takes (0: as many as fit). `device_id` is what no other device on `host` is
    called."""

    worker: bytes
    name: str
    host: str
    device: str
    device_id: str
    copies: Mapping[Key, str]
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    leaving: bool = False
    copies_max: int = 0


class Want(NamedTuple):
    """How many copies of a version there should be, and what each needs (0: nobody knows)."""

    spec: ModelSpec
    copies: int
    need_bytes: int = 0


class Order(NamedTuple):
    """Load (`spec` given) or unload one version in one worker."""

    worker: bytes
    key: Key
    spec: ModelSpec | None


class Plan(NamedTuple):
    """`short` says for each version without its wanted copies why; `lacking`, how many more workers would
    help it. (None would help one that failed to load.)"""

    orders: list[Order]
    short: dict[Key, str]
    lacking: Mapping[Key, int] = {}  # never changed


def fits(spec: ModelSpec, device: str) -> bool:
    """Whether a worker on `device` can host the model: "auto" and "cpu" run anywhere, "cuda" on any GPU."""
    return spec.device in ("auto", "cpu", device) or (spec.device == "cuda" and device.startswith("cuda"))


def plan(wants: Iterable[Want], seats: list[Seat], held: Mapping[Key, int] | None = None) -> Plan:
    """The orders that lead from what is to what should be; none when all is well.

    `held`: what a copy of a version that is in no want any more needs, for as long as it is unloaded.
    """
    wanted = {want.spec.key: want for want in wants}
    counts = Counter(chain.from_iterable(seat.copies.items() for seat in seats if not seat.leaving))
    useless = {key for key, state in counts if state != "unloading" and not _copies(wanted, key)}
    missing = {
        key: want.copies - counts[key, "ready"] - counts[key, "loading"] for key, want in wanted.items()
    }
    odd = {key for key, count in missing.items() if count} | useless
    if not odd:
        return Plan([], {})
    needs = {**(held or {}), **{key: want.need_bytes for key, want in wanted.items() if want.need_bytes}}
    hall = _Hall(seats, needs, odd)
    if useless:
        hall.clear(useless)
    for key in odd - useless:
        hall.thin_out(key, wanted[key].copies)
    unloads = [Order(row.seat.worker, key, None) for row, key in sorted(hall.unloads, key=_by_index)]
    hall.begin()
    lacking = [want for key, want in wanted.items() if missing[key] > 0]
    loads = [Order(row.seat.worker, want.spec.key, want.spec) for row, want in _fill(hall, lacking, missing)]
    short = {want.spec.key: hall.why(want, counts) for want in lacking if missing[want.spec.key]}
    helped = {key: missing[key] for key in short if not counts[key, "failed"]}
    return Plan(unloads + loads, short, helped)


def _copies(wanted: Mapping[Key, Want], key: Key) -> int:
    return wanted[key].copies if key in wanted else 0


def _fill(hall: _Hall, wants: list[Want], missing: dict[Key, int]) -> Iterator[tuple[_Row, Want]]:
    """Where to load what is missing; what there is no place for stays in `missing`.

    One whose need is not known takes no memory from others, so it need not wait for its second copy. That
    all its copies are placed at once leaves workers alike (see `crews`).
    """
    wants = sorted(wants, key=lambda want: -want.need_bytes)
    alone = [want for want in wants if want.need_bytes and not hall.where[want.spec.key].rows]
    for want, most in chain(((want, 1) for want in alone), ((want, want.copies) for want in wants)):
        key = want.spec.key
        for _ in range(min(most, missing[key])):
            row = hall.best(want)
            if row is None:
                break
            hall.load(row, want)
            missing[key] -= 1
            yield row, want


class _Device:
    """`peak`: the most that its workers hold while the plan is carried out, in bytes."""

    __slots__ = ("host", "limit", "number", "peak", "rows")

    def __init__(self, host: str, number: int) -> None:
        self.host = host
        self.number = number  # on its host
        self.limit = inf
        self.peak = 0.0
        self.rows: list[_Row] = []


class _Row:
    """A seat as the plan fills it. In bytes: `held` before it, `now` after what was ordered so far, `peak`
    the larger of both, and `room` for one copy more. `free`: how many copies more it takes. `rank`: whose
    turn it is when all else is equal."""

    __slots__ = ("device", "free", "held", "index", "limit", "load", "now", "peak", "rank", "room", "seat")

    def __init__(self, seat: Seat, index: int, device: _Device) -> None:
        self.seat = seat
        self.index = index
        self.device = device
        self.rank = 0
        self.load = len(seat.copies)
        self.limit = seat.memory_bytes or inf
        self.held = self.now = self.peak = 0.0
        self.room = self.limit
        self.free = inf
        if seat.copies_max:
            self.free = seat.copies_max - sum(state in LIVE for state in seat.copies.values())

    @property
    def full(self) -> bool:
        return self.free <= 0

    def hold(self, bytes: float) -> None:
        """From the beginning."""
        self.held = self.now = self.peak = bytes
        self.device.peak += bytes

    def change(self, bytes: float, copies: int) -> None:
        """By an order: above zero to load, below to unload."""
        self.load += copies
        self.now += bytes
        peak = max(self.held, self.now)
        self.device.peak += peak - self.peak
        self.peak = peak

    def measure(self) -> None:
        beside = self.device.limit - (self.device.peak - self.peak)
        self.room = min(self.limit, beside) - self.now


def _snug(row: _Row) -> tuple[float, ...]:
    """For what can be packed."""
    whole = min(row.limit, row.device.limit)
    tier = row.load if whole == inf else max(row.load // PACK, int((1 - row.room / whole) * PACK))
    return (row.full, tier, row.load == 0, row.room, row.rank)


def _least(row: _Row) -> tuple[float, ...]:
    """For what may need anything."""
    return (row.full, row.load, -row.room, row.rank)


class _Spread:
    """Who has, or gets, a copy of one version, and how many are near one another."""

    def __init__(self) -> None:
        self.rows: dict[_Row, None] = {}
        self.devices: Counter[_Device] = Counter()
        self.hosts: Counter[str] = Counter()

    def add(self, row: _Row) -> None:
        self.rows[row] = None
        self.devices[row.device] += 1
        self.hosts[row.device.host] += 1

    def remove(self, row: _Row) -> None:
        del self.rows[row]
        self.devices[row.device] -= 1
        self.hosts[row.device.host] -= 1

    def near(self, row: _Row) -> tuple[int, int]:
        """How many are on the worker's device, and on its host."""
        return self.devices[row.device], self.hosts[row.device.host]


class _Line:
    """Workers in the order in which they are taken, full ones last. `most_room`: none of the others has
    more."""

    def __init__(self, rows: list[_Row], order: Callable[[_Row], tuple[float, ...]]) -> None:
        self._order = order
        self._rows: dict[float, _Row] = {row.rank: row for row in rows}
        self._keys = {row: order(row) for row in rows}
        self._sorted = sorted(self._keys.values())
        self._devices = len({row.device for row in rows})
        self._hosts = len({row.device.host for row in rows})
        self.most_room = inf
        self.limit = max((min(row.limit, row.device.limit) for row in rows), default=0.0)

    def __len__(self) -> int:
        return len(self._sorted)

    def move(self, row: _Row) -> None:
        """It changed."""
        if row in self._keys:
            del self._sorted[bisect_left(self._sorted, self._keys[row])]
            self._keys[row] = self._order(row)
            insort(self._sorted, self._keys[row])

    def best(self, want: Want, spread: _Spread) -> _Row | None:
        """The first of those farthest from where copies are; None if there is room in none.

        Once one is found that is as far as any can be, the rest need not be looked at.
        """
        need, key = want.need_bytes, want.spec.key
        if need > self.most_room:
            return None
        goal = (_lowest(spread.devices, self._devices), _lowest(spread.hosts, self._hosts))
        best, best_near = None, (inf, inf)
        for *_, rank in self._sorted:
            row = self._rows[rank]
            if row.full:
                break
            if row.room < need or key in row.seat.copies or row in spread.rows:
                continue
            near = spread.near(row)
            if near <= goal:
                return row
            if near < best_near:
                best, best_near = row, near
        if best is None:
            self.most_room = max((row.room for row in self._keys if not row.full), default=-1.0)
        return best

    @cached_property
    def full(self) -> int:
        """How many are full when the plan is made."""
        return sum(row.full for row in self._keys)


def _lowest(counts: Counter[_Device] | Counter[str], places: int) -> int:
    """How many there are at least at each of so many places."""
    return min(counts.values(), default=0) if len(counts) >= places else 0


class _Hall:
    """All workers while a plan is made. `where`: those with a copy that is loading or ready, of each version
    that is looked at."""

    def __init__(self, seats: list[Seat], needs: Mapping[Key, int], keys: set[Key]) -> None:
        self._needs = needs
        self._rows = _rows(seats)
        self._leaving_only = all(seat.leaving for seat in seats)
        self._lines: dict[tuple[str, bool], _Line] = {}
        self.unloads: list[tuple[_Row, Key]] = []
        self.where = {key: _Spread() for key in keys}
        for row in self._rows:
            copies = row.seat.copies
            if needs:
                row.hold(sum(needs.get(key, 0) for key, state in copies.items() if state != "failed"))
            for key in () if row.seat.leaving else keys & copies.keys():
                if copies[key] in LIVE:
                    self.where[key].add(row)

    # ---- what goes ----

    def clear(self, keys: set[Key]) -> None:
        """Unload these versions everywhere."""
        for row in self._rows:
            for key in () if row.seat.leaving else keys & row.seat.copies.keys():
                if row.seat.copies[key] != "unloading":
                    self._unload(row, key)

    def thin_out(self, key: Key, copies: int) -> None:
        """Unload what is too much: first what does not serve yet, then where there is most of it."""
        spread = self.where[key]

        def worth(row: _Row) -> tuple[float, ...]:
            devices, hosts = spread.near(row)
            return (row.seat.copies[key] == "ready", -devices, -hosts, -row.load, -row.index)

        heap = [(worth(row), row) for row in spread.rows] if len(spread.rows) > copies else []
        heapify(heap)
        while len(heap) > copies:
            before, row = heappop(heap)
            if before != (now := worth(row)):  # others of its device or host went meanwhile
                heappush(heap, (now, row))
            else:
                spread.remove(row)
                self._unload(row, key)

    def _unload(self, row: _Row, key: Key) -> None:
        failed = row.seat.copies[key] == "failed"
        row.free += not failed
        row.change(0.0 if failed else -self._needs.get(key, 0), -1)
        self.unloads.append((row, key))

    # ---- what comes ----

    def begin(self) -> None:
        """Everything that goes is known."""
        for row in self._rows:
            row.measure()

    def best(self, want: Want) -> _Row | None:
        """Where a copy more should be."""
        return self._line(want).best(want, self.where[want.spec.key])

    def load(self, row: _Row, want: Want) -> None:
        self.where[want.spec.key].add(row)
        row.free -= 1
        row.change(want.need_bytes, 1)
        shared = want.need_bytes and row.device.limit < inf
        for each in row.device.rows if shared else [row]:
            each.measure()
            for line in self._lines.values():
                line.move(each)

    def why(self, want: Want, counts: Counter[tuple[Key, str]]) -> str:
        """Why there are too few, for an operator."""
        if not self._rows:
            return "no worker has joined"
        if self._leaving_only:
            return "every worker is leaving"
        line, need = self._line(want), want.need_bytes
        if not len(line):
            return f"no worker has a device {want.spec.device}"
        words = [f"{want.copies} copies wanted, {len(line)} workers suited"]
        if failed := counts[want.spec.key, "failed"]:
            words.append(f"{failed} failed to load it")
        if need > line.limit:
            words.append(f"needs {_size(need)}, the largest suited worker has {_size(line.limit)}")
        elif need > line.most_room >= 0:
            other = "other " if self.where[want.spec.key].rows else ""
            free = _size(line.most_room)
            words.append(f"needs {_size(need)}, the most that any {other}suited worker has free is {free}")
        elif not failed and line.full < len(line):
            words[0] += " (one copy each)"
        if line.full:
            full = "every" if line.full == len(line) else f"{line.full}"
            words.append(
                f"full (copies_max): {full} suited worker{'' if line.full in (1, len(line)) else 's'}"
            )
        return ", ".join(words[1:] if want.copies == 1 and len(words) > 1 and not failed else words)

    def _line(self, want: Want) -> _Line:
        spec = want.spec
        which = ("auto" if spec.device == "cpu" else spec.device, want.need_bytes > 0)
        if which not in self._lines:
            suited = [r for r in self._rows if not r.seat.leaving and fits(spec, r.seat.device)]
            self._lines[which] = _Line(suited, _snug if want.need_bytes else _least)
        return self._lines[which]


def _rows(seats: list[Seat]) -> list[_Row]:
    """Ranked so that equal workers are taken from one host after another, and on a host from one device after
    another."""
    devices: dict[tuple[str, str], _Device] = {}
    hosts: Counter[str] = Counter()
    rows = []
    for index, seat in enumerate(seats):
        where = (seat.host, "cpu" if seat.device == "cpu" else seat.device_id)
        if where not in devices:
            devices[where] = _Device(seat.host, hosts[seat.host])
            hosts[seat.host] += 1
        device = devices[where]
        device.limit = min(device.limit, seat.device_memory_bytes or inf)
        rows.append((len(device.rows), device.number, index, _Row(seat, index, device)))
        device.rows.append(rows[-1][-1])
    for rank, (*_, row) in enumerate(sorted(rows)):
        row.rank = rank
    return [row for *_, row in rows]


def _by_index(unload: tuple[_Row, Key]) -> int:
    return unload[0].index


def _size(bytes: float) -> str:
    if bytes < 1 << 30:
        return f"{max(bytes, 0) / (1 << 20):.0f} MiB"
    return f"{bytes / (1 << 30):.1f} GiB"
