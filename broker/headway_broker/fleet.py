"""Which worker processes there should be, as orders to the agents to start and stop them.

Knows: what each agent's host offers and runs, who is on the roster, which versions are short of workers.
Must not know: messages' ways, requests, where copies go, clocks.

Called about once a second with the world as it is (a *look*); what it remembers is one `_Slot` for each
worker that an agent has, or is to have:

    ordered ──► seen in its agent's list ──► on the roster
       ▲                   │ ended
       └──── waiting ◄─────┘                     told to stop, or drained: gone when it has ended

- A host has as many workers as were ordered, or else as its agent says, spread over its devices, within
  what the agent says that fits. A worker that leaves no longer counts, but has its place until it is gone.
- Where nobody ordered a number, a host gets more, when versions are short of workers that it could have.
  What is on its way already is counted first, each worker for one copy of every version that fits into it
  beside the others. Above its number, a worker that had no copies for `idle_s` is stopped. If workers that
  were started for a version end so, it gets none for `vain_s`: they did not help.
- A worker that ended is started again, after a while that doubles as long as it does not live for
  `steady_s`; one that says that its settings are wrong (CONFIG) waits longer. It keeps its name and place.
- Names are HOST-wN. A start is given up when its agent joined again without it, or says nothing of it for
  `start_s`. The name is then free, so that if it was started after all, the second order finds it there.
- Workers of a host whose agent is gone are left alone. Those on the roster with such a name, of which their
  agent knows nothing, count, but it cannot stop them.

Invariant: no more slots on a host than its agent may have workers, and on a device than it has places,
unless the agent has them.

Longer than 300 lines because all of it is about what one slot goes through.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from itertools import count as numbers
from typing import NamedTuple

from headway.messages import AgentWorker, StartWorker, StopWorker
from headway.models import ModelSpec
from headway_broker.catalog import Key
from headway_broker.offers import Offer, Place, suits, wanted

TRIES_MAX = 3  # a worker that ended so often in a row is not on its way


class Joined(NamedTuple):
    """A worker on the roster."""

    host: str
    copies: int
    draining: bool = False


class Need(NamedTuple):
    """A version for which so many more workers would be of use, and why."""

    spec: ModelSpec
    copies: int
    need_bytes: int
    reason: str


class FleetOrder(NamedTuple):
    """For the agent of `host`."""

    host: str
    message: StartWorker | StopWorker


@dataclass(frozen=True)
class FleetTimes:
    """In seconds."""

    idle_s: float = 60.0
    vain_s: float = 600.0
    start_s: float = 30.0
    stop_again_s: float = 10.0
    join_s: float = 120.0
    steady_s: float = 30.0
    again_s: float = 0.25
    again_most_s: float = 30.0
    again_config_s: float = 60.0


@dataclass(slots=True)
class _Slot:
    """A worker that there is or is to be. Times are inf for what is not so: `again_at` while it is to be
    started again, `stopped_at` once it was told to stop, `empty_since` while it is on the roster without
    copies. `since`: when it was ordered or found."""

    host: str
    device: str
    since: float
    seen: bool = False
    joined: bool = False
    draining: bool = False
    copies: int = 0
    tries: int = 0
    again_at: float = math.inf
    stopped_at: float = math.inf
    empty_since: float = math.inf

    @property
    def leaving(self) -> bool:
        return self.draining or self.stopped_at < math.inf

    @property
    def waiting(self) -> bool:
        return self.again_at < math.inf


@dataclass
class _Bin:
    """A worker that can still take copies: one of each version, as long as there is room, and `copies_max` in
    all (0: as many as fit)."""

    device: str
    room: float
    copies_max: int = 0
    keys: set[Key] = field(default_factory=set)

    def take(self, need: Need) -> bool:
        key = need.spec.key
        if self.copies_max and len(self.keys) >= self.copies_max:
            return False
        if suits(need.spec, self.device) and key not in self.keys and need.need_bytes <= self.room:
            self.room -= need.need_bytes
            self.keys.add(key)
            return True
        return False


class Fleet:
    """All workers that agents have or shall have."""

    def __init__(self, times: FleetTimes | None = None) -> None:
        self._times = times or FleetTimes()
        self._slots: defaultdict[str, dict[str, _Slot]] = defaultdict(dict)  # by host, and name
        self._vain: dict[Key, float] = {}  # until when

    @property
    def is_starting(self) -> bool:
        """Whether a worker is on its way."""
        return any(not s.joined and not s.leaving for slots in self._slots.values() for s in slots.values())

    def ended(self, host: str, worker: AgentWorker, now: float) -> None:
        """The host's agent reported the end of a worker, or that it cannot be started."""
        if slot := self._slots[host].get(worker.name):
            self._end(worker.name, slot, worker.reason, now)

    def orders(
        self,
        offers: Iterable[Offer],
        joined: Mapping[str, Joined],
        ordered: Mapping[str, int],
        needs: Iterable[Need],
        now: float,
    ) -> list[FleetOrder]:
        """What the agents shall do. `joined`: the roster by name; `ordered`: how many an operator wants, by
        host."""
        hosts = {offer.host: offer for offer in offers}
        needs = list(needs)
        theirs: defaultdict[str, dict[str, Joined]] = defaultdict(dict)
        for name, about in joined.items():
            theirs[about.host][name] = about
        for offer in hosts.values():
            self._look(offer, theirs[offer.host], now)
        made: list[FleetOrder] = []
        for offer in hosts.values():
            made += self._thin_out(offer, ordered, needs, now)
            made += self._stop_again(offer, now)
            made += self._fill(offer, joined, ordered, now)
        made += self._meet(hosts, joined, ordered, needs, now)
        return made

    # ---- what there is ----

    def _look(self, offer: Offer, joined: Mapping[str, Joined], now: float) -> None:
        """Bring the slots of a host up to date."""
        slots = self._slots[offer.host]
        running = {name: worker for name, worker in offer.workers.items() if worker.state != "ended"}
        for name, worker in running.items():
            slot = slots.setdefault(name, _Slot(offer.host, worker.device, now))
            slot.seen, slot.again_at, slot.device = True, math.inf, worker.device
            if worker.state == "stopping":
                slot.stopped_at = min(slot.stopped_at, now)
        for name in joined:
            if _number(offer.host, name) and name not in slots:
                slots[name] = _Slot(offer.host, "", now, seen=True)
        for name, slot in list(slots.items()):
            self._follow(slot, joined.get(name), now)
            if name not in running and not slot.joined and not slot.waiting:
                self._miss(name, slot, offer, now)

    def _follow(self, slot: _Slot, about: Joined | None, now: float) -> None:
        """What the roster says of it."""
        slot.joined = about is not None
        slot.copies = about.copies if about else 0
        slot.draining = about.draining if about else slot.draining
        empty = slot.joined and not slot.copies
        slot.empty_since = min(slot.empty_since, now) if empty else math.inf
        slot.seen = slot.seen or slot.joined
        if slot.joined and now - slot.since >= self._times.steady_s:
            slot.tries = 0

    def _miss(self, name: str, slot: _Slot, offer: Offer, now: float) -> None:
        """Nobody knows the worker: it has ended, or was never started, or its agent has yet to say so."""
        if slot.seen:
            worker = offer.workers.get(name)
            self._end(name, slot, worker.reason if worker else "", now)
        elif slot.since < offer.joined_at or now - slot.since >= self._times.start_s:
            del self._slots[offer.host][name]

    def _end(self, name: str, slot: _Slot, reason: str, now: float) -> None:
        if slot.leaving:
            del self._slots[slot.host][name]
        elif not slot.waiting:
            slot.tries = slot.tries + 1 if now - slot.since < self._times.steady_s else 1
            wait_s = min(self._times.again_s * 2 ** min(slot.tries - 1, 16), self._times.again_most_s)
            slot.again_at = now + (max(wait_s, self._times.again_config_s) if "CONFIG" in reason else wait_s)
            slot.seen = slot.joined = False
            slot.empty_since = math.inf

    # ---- too many ----

    def _thin_out(
        self, offer: Offer, ordered: Mapping[str, int], needs: list[Need], now: float
    ) -> Iterator[FleetOrder]:
        """Stop those above the number, fewest copies first: all, if somebody ordered it, else the idle."""
        here = [(name, slot) for name, slot in self._slots[offer.host].items() if not slot.leaving]
        here.sort(key=lambda each: (not each[1].waiting, each[1].copies, -_number(offer.host, each[0])))
        most = wanted(offer, ordered.get(offer.host))
        for name, slot in here[: max(len(here) - most, 0)]:
            idle = now - slot.empty_since >= self._times.idle_s
            known = name in offer.workers or not slot.seen
            if offer.host in ordered and slot.waiting:
                del self._slots[offer.host][name]
            elif known and (idle or offer.host in ordered):
                slot.stopped_at = now
                yield _stop(offer, name, f"{most} workers are wanted on {offer.host}")
                vain = [need.spec.key for need in needs if idle and suits(need.spec, slot.device)]
                self._vain.update(dict.fromkeys(vain, now + self._times.vain_s))

    def _stop_again(self, offer: Offer, now: float) -> Iterator[FleetOrder]:
        """Those that run although they were told to stop: their agent may not have heard it."""
        for name, slot in self._slots[offer.host].items():
            worker = offer.workers.get(name)
            late = slot.stopped_at <= now - self._times.stop_again_s or slot.stopped_at < offer.joined_at
            if worker and worker.state == "running" and slot.stopped_at < now and late:
                slot.stopped_at = now
                yield _stop(offer, name, "it was told to stop before")

    # ---- too few ----

    def _fill(
        self, offer: Offer, joined: Mapping[str, Joined], ordered: Mapping[str, int], now: float
    ) -> Iterator[FleetOrder]:
        """Those that ended, when it is time; then new ones up to the number."""
        for name, slot in list(self._slots[offer.host].items()):
            if slot.again_at <= now and name not in joined:
                del self._slots[offer.host][name]
                if place := next((p for p in self._free(offer) if p.device == slot.device), None):
                    yield self._start(offer, place, name, f"it ended (start {slot.tries + 1})", now)
                    self._slots[offer.host][name].tries = slot.tries
        here = sum(not slot.leaving for slot in self._slots[offer.host].values())
        target = wanted(offer, ordered.get(offer.host))
        for _ in range(target - here):
            if free := self._free(offer):
                reason = f"{target} workers are wanted on {offer.host}"
                yield self._start(offer, free[0], self._name(offer, joined), reason, now)

    def _free(self, offer: Offer) -> list[Place]:
        """Devices with room for one more worker, the emptiest first."""
        filled = Counter(slot.device for slot in self._slots[offer.host].values())
        if filled.total() >= offer.workers_max:
            return []
        free = [place for place in offer.places if filled[place.device] < place.places]
        return sorted(free, key=lambda place: filled[place.device])

    def _name(self, offer: Offer, joined: Mapping[str, Joined]) -> str:
        names = (f"{offer.host}-w{number}" for number in numbers(1))
        return next(name for name in names if name not in self._slots[offer.host] and name not in joined)

    def _start(self, offer: Offer, place: Place, name: str, reason: str, now: float) -> FleetOrder:
        self._slots[offer.host][name] = _Slot(offer.host, place.device, now)
        return FleetOrder(offer.host, StartWorker(name, place.device, place.share, reason))

    # ---- what is short ----

    def _meet(
        self,
        hosts: Mapping[str, Offer],
        joined: Mapping[str, Joined],
        ordered: Mapping[str, int],
        needs: list[Need],
        now: float,
    ) -> Iterator[FleetOrder]:
        """A worker more for each copy that finds no room in those which are on their way."""
        bins = [_bin(hosts[slot.host], slot.device) for slot in self._coming(hosts, now)]
        open_hosts = [offer for offer in hosts.values() if offer.host not in ordered]
        for need in needs:
            takers = islice((bin for bin in bins if bin.take(need)), need.copies)
            lacking = need.copies - sum(1 for _ in takers)
            for _ in range(lacking if self._vain.get(need.spec.key, -math.inf) <= now else 0):
                found = self._best(open_hosts, need)
                if found is None:
                    break
                offer, place = found
                reason = f"model {need.spec.name} {need.spec.version}: {need.reason}"
                yield self._start(offer, place, self._name(offer, joined), reason, now)
                bins.append(_bin(offer, place.device))
                bins[-1].take(need)

    def _coming(self, hosts: Mapping[str, Offer], now: float) -> Iterator[_Slot]:
        """Workers that have nothing yet, and may get it."""
        for slot in chain.from_iterable(self._slots[host].values() for host in hosts):
            late = not slot.joined and now - slot.since >= self._times.join_s
            if not (slot.leaving or slot.copies or late or slot.tries >= TRIES_MAX):
                yield slot

    def _best(self, offers: list[Offer], need: Need) -> tuple[Offer, Place] | None:
        """The emptiest host where the version can run, on its emptiest device."""
        found: list[tuple[bool, float, int, Offer, Place]] = []
        for number, offer in enumerate(offers):
            slots = self._slots[offer.host].values()
            for place in self._free(offer):
                if suits(need.spec, place.device) and need.need_bytes <= offer.memory_of(place.device):
                    fails = any(slot.waiting for slot in slots)
                    found.append((fails, len(slots) / offer.room, number, offer, place))
                    break
        return min(found, key=lambda each: each[:3])[3:] if found else None


def _bin(offer: Offer, device: str) -> _Bin:
    return _Bin(device, offer.memory_of(device), offer.copies_max)


def _stop(offer: Offer, name: str, reason: str) -> FleetOrder:
    return FleetOrder(offer.host, StopWorker(name, reason))


def _number(host: str, name: str) -> int:
    """The N of HOST-wN; 0 for another name."""
    start, _, number = name.rpartition("-w")
    return int(number) if start == host and number.isdecimal() and number.isascii() else 0
