"""How many copies each version should have, between the least and the most that it may.

Knows: how long requests wait, how busy the copies' workers are. Must not know: where copies are, how they
are loaded, queues, clocks.

Called for every version about once a second (a *look*). It goes up quickly and down slowly, since too few
copies cost answers and too many cost only memory:

- Up when requests wait too long in two looks running, or when the workers of its copies are busy nearly all
  the time for some seconds, and a good part of that is its own; not when the waits shrink so fast that they
  will be right in a few seconds. In proportion to how far it is over the target: by one at least, and no
  more than double. While a copy is still loading it waits to see what that one brings.
- Down when one copy fewer would leave the others with time to spare, for a minute without a break, and by
  one: then the minute begins anew. A version that nobody asks goes down even where others keep its workers
  busy.
- To none when it may have none and nobody has asked for it for minutes; from none to one at once when a
  request waits.
- What an operator ordered holds at once: never below the least, never above the most.

Why it does not swing: it goes up at `busy_high`, and by so much that `busy_goal` is reached; it goes down
only if it would stay under `busy_low`, which is lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from headway_broker.catalog import Key

OWN_PART = 0.25  # of what its workers do; a version with less of it is not who keeps them busy


class Load(NamedTuple):
    """What there is of a version at a look.

    `waiting`: rows in its queue; `oldest_wait_s`: how long the first of them has waited, beyond the time for
    which a batch is held back on purpose. `busy`: which part of the time since the last look the workers of
    its ready copies computed anything, their mean, 0 to 1; `own`: which part they computed for this version.
    `idle_s`: since its last request, or since it is known.
    """

    waiting: int
    oldest_wait_s: float
    busy: float
    own: float
    ready: int
    wanted: int
    idle_s: float


class Wish(NamedTuple):
    """`reason` is "" when nothing changes."""

    copies: int
    reason: str


@dataclass(frozen=True)
class ScalingTimes:
    """When to scale. `wait_s`: what a request may wait where the model has no SLO (else half of that);
    `settle_s`: within which a wait that shrinks must be right again. `busy_...` are parts of the time."""

    wait_s: float = 0.25
    settle_s: float = 5.0
    busy_high: float = 0.85
    busy_goal: float = 0.7
    busy_low: float = 0.6
    high_s: float = 3.0
    low_s: float = 60.0
    none_s: float = 300.0


@dataclass(slots=True)
class _Past:
    """Of one version: since when it is as it is, inf if it is not."""

    late_since: float = math.inf
    high_since: float = math.inf
    low_since: float = math.inf
    wait_s: float = 0.0
    looked_at: float = -math.inf


class Scaler:
    """Remembers of each version what it takes to go up quickly and down slowly."""

    def __init__(self, times: ScalingTimes | None = None) -> None:
        self._times = times or ScalingTimes()
        self._pasts: dict[Key, _Past] = {}

    def decide(self, key: Key, least: int, most: int, load: Load, slo_s: float, now: float) -> Wish:
        """How many copies there should be from now on. `slo_s` 0: none."""
        past = self._pasts.setdefault(key, _Past())
        goal_s = slo_s / 2 or self._times.wait_s
        self._look(past, load, goal_s, now)
        wish = (
            _within(least, most, load)
            or self._none(least, most, load)
            or self._up(past, most, load, goal_s, now)
            or self._down(past, least, load, now)
        )
        if wish:
            self._pasts[key] = _Past(wait_s=load.oldest_wait_s, looked_at=now)
        return wish or Wish(load.wanted, "")

    def forget(self, key: Key) -> None:
        """The version is gone."""
        self._pasts.pop(key, None)

    def _look(self, past: _Past, load: Load, goal_s: float, now: float) -> None:
        loading = load.ready < load.wanted
        late = load.waiting > 0 and load.oldest_wait_s > goal_s
        soon = late and self._soon_right(past, load, goal_s, now)
        high = load.busy > self._times.busy_high and load.own >= load.busy * OWN_PART
        past.wait_s, past.looked_at = load.oldest_wait_s, now
        growing = not soon and not loading
        past.late_since = min(past.late_since, now) if late and growing else math.inf
        past.high_since = min(past.high_since, now) if high and growing else math.inf
        past.low_since = min(past.low_since, now) if not late and self._low(load) else math.inf

    def _soon_right(self, past: _Past, load: Load, goal_s: float, now: float) -> bool:
        """Whether what waits shrinks fast enough."""
        fell_s = (past.wait_s - load.oldest_wait_s) / max(now - past.looked_at, 1e-3)  # in a second
        return load.oldest_wait_s - fell_s * self._times.settle_s <= goal_s

    def _low(self, load: Load) -> bool:
        """Whether one copy fewer would do."""
        if load.wanted < 2 or not load.ready:
            return False
        after = load.busy - load.own + load.own * load.ready / (load.wanted - 1)
        return after < self._times.busy_low or load.idle_s >= self._times.low_s

    def _none(self, least: int, most: int, load: Load) -> Wish | None:
        """From none, and to none."""
        if not load.wanted:
            return Wish(1, "a request waits, and there is no copy") if load.waiting and most else None
        if not least and not load.waiting and load.idle_s >= self._times.none_s:
            return Wish(0, f"no request for {load.idle_s:.0f} s")
        return None

    def _up(self, past: _Past, most: int, load: Load, goal_s: float, now: float) -> Wish | None:
        ratio, reason = 0.0, ""
        if past.late_since < now:
            ratio = load.oldest_wait_s / goal_s
            reason = f"a request has waited {load.oldest_wait_s:.2g} s, more than {goal_s:.2g} s"
        elif now - past.high_since >= self._times.high_s:
            ratio = load.busy / self._times.busy_goal
            reason = f"its workers are busy {load.busy:.0%} of the time"
        # No more than double: also what makes an infinite ratio, of an SLO next to nothing, a number.
        more = min(max(math.ceil(load.wanted * min(ratio, 2.0)), load.wanted + 1), most)
        return Wish(more, reason) if reason and more > load.wanted else None

    def _down(self, past: _Past, least: int, load: Load, now: float) -> Wish | None:
        if load.wanted <= least or now - past.low_since < self._times.low_s:
            return None
        return Wish(load.wanted - 1, f"its copies are busy {load.own:.0%} of the time: fewer will do")


def _within(least: int, most: int, load: Load) -> Wish | None:
    """What is outside what was ordered."""
    if load.wanted < least:
        return Wish(least, f"at least {least} are ordered")
    if load.wanted > most:
        return Wish(most, f"at most {most} are ordered")
    return None
