"""What happened between two looks at the state: rates and latencies.

Pure: states in, numbers out; the seconds between them are a parameter. The broker counts from its start, so
two looks at one broker differ by what happened in between, and a count that fell means another broker.

Knows: the fields of PROTOCOL.md's `stats`. Must not know: who asked, clocks, the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Key = tuple[str, str]


class Traffic(NamedTuple):
    """Of one model version: requests and failures a second, and what half and 99 of 100 took at most, in
    seconds. None where nobody knows (yet)."""

    rate: float | None = None
    failing: float | None = None
    p50_s: float | None = None
    p99_s: float | None = None


UNKNOWN = Traffic()
GOOD = ("ok", "Cancelled")  # who withdrew a request was not failed


def traffic_between(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float
) -> dict[Key, Traffic]:
    """For each version in the state `after`. Without a look before, or with one at another broker, all of
    them are unknown; a version that is new since then has done since then what it has done."""
    models = {_key(model): _stats(model) for model in after.get("models", [])}
    if before is None or seconds <= 0 or not _is_one_broker(before, after):
        return dict.fromkeys(models, UNKNOWN)
    earlier = {_key(model): _stats(model) for model in before.get("models", [])}
    return {key: traffic(earlier.get(key, {}), stats, seconds) for key, stats in models.items()}


def traffic(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> Traffic:
    """From two `stats` of one version."""
    outcomes = _risen(before.get("outcomes", {}), after.get("outcomes", {}))
    if outcomes is None or not after:
        return UNKNOWN
    total, bounds = counts_between(before.get("total_s"), after.get("total_s"))
    failures = sum(count for outcome, count in outcomes.items() if outcome not in GOOD)
    return Traffic(
        sum(outcomes.values()) / seconds,
        failures / seconds,
        quantile(bounds, total, 0.5),
        quantile(bounds, total, 0.99),
    )


def counts_between(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[list[int], list[float]]:
    """What a histogram counted since `before`, and its bounds. Empty where the two do not belong together."""
    if not after:
        return [], []
    counts, bounds = list(after["counts"]), list(after["bounds"])
    earlier = list(before["counts"]) if before else [0] * len(counts)
    if before and list(before["bounds"]) != bounds:
        return [], []
    risen = [now - then for now, then in zip(counts, earlier, strict=False)]
    return (risen, bounds) if min(risen, default=0) >= 0 else ([], [])


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """Where the share `q` of what was counted lies at or below: inside its bucket as if that were evenly
    filled. Above the last bound, which is all that is known then, the last bound. None of nothing."""
    total = sum(counts)
    if not total or not bounds:
        return None
    rank, seen, low = q * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and seen + count >= rank:
            return low + (bound - low) * max(rank - seen, 0.0) / count
        seen, low = seen + count, bound
    return bounds[-1]


def _is_one_broker(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    then, now = before.get("broker", {}), after.get("broker", {})
    same = all(then.get(key) == now.get(key) for key in ("host", "pid"))
    return same and now.get("uptime_s", 0.0) >= then.get("uptime_s", 0.0)


def _risen(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int] | None:
    """None if one fell: these counts were started anew."""
    if any(after.get(outcome, 0) < count for outcome, count in before.items()):
        return None
    return {outcome: count - before.get(outcome, 0) for outcome, count in after.items()}


def _key(model: Mapping[str, Any]) -> Key:
    return str(model["name"]), str(model["version"])


def _stats(model: Mapping[str, Any]) -> Mapping[str, Any]:
    stats = model.get("stats")
    return stats if isinstance(stats, Mapping) else {}
