"""What a model's handler recorded, in replies that nobody waits for any more.

A reply carries what was recorded since the last one (PROTOCOL.md, section 4). If its request is over, because
its caller has left or its time has, the records wait here for the version's next reply to a caller that came
with headers, so that nothing is missing from its sums.

Pure. Knows: that records are rows, and that a row may leave out what the row before says. Must not know: what
is in them, callers.
"""

from __future__ import annotations

from typing import Any

from headway_broker.catalog import Key

META = "metrics"
ROWS_MAX = 1024  # of one version: the last ones are kept
VERSIONS_MAX = 1024
_WHOLE = 6  # entries of a row that says for which requests it is


class Strays:
    """All versions'. `kept` is empty nearly always (PERF: asked for every reply)."""

    def __init__(self) -> None:
        self.kept: dict[Key, list[Any]] = {}

    def keep(self, key: Key, meta: dict[str, Any]) -> None:
        """Of a reply that is dropped."""
        if META not in meta:
            return
        if len(self.kept) >= VERSIONS_MAX:  # of versions that have gone, mostly
            self.kept.clear()
        self.kept[key] = _joined(self.kept.get(key, []), meta[META])[-ROWS_MAX:]

    def join(self, key: Key, meta: dict[str, Any]) -> dict[str, Any]:
        """The meta of a reply that goes out, with what was kept for it."""
        rows = self.kept.pop(key, None)
        return {**meta, META: _joined(rows, meta.get(META, []))} if rows else meta


def _joined(earlier: list[Any], later: Any) -> list[Any]:
    if not isinstance(later, list) or not later:
        return earlier
    first = later[0]
    if isinstance(first, list) and len(first) == _WHOLE - 1:
        first = [*first, ""]  # it is for none, and not for those of the row before
    return [*earlier, first, *later[1:]]
