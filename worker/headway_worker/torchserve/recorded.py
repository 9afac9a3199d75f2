"""What a handler has recorded and no reply has taken along yet.

Knows: how much may wait and travel. Must not know: handlers, replies.

Records wait for the next reply to a request that came with headers, which is one that came through a
TorchServe door; so a handler may record at any time, in any thread, and others' replies carry nothing. While
more than RECORDS_MAX wait (nobody came through that door), they are put together: the values of a counter
summed, of a gauge the last one kept. What is too much even then is lost, which is logged once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from headway.torchserve.metrics import COUNTER, GAUGE, Record

log = logging.getLogger("headway.worker")
RECORDS_MAX = 256
REPLY_BYTES_MAX = 32 << 10  # of the records in one reply, about
NAME_CHARS_MAX = 256  # of a name, a unit, a dimension
REQUEST_CHARS_MAX = 4096  # a batch's requests, by their ids
_RECORD_BYTES = 24


class Recorded:
    """One model's."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._waiting: deque[Record] = deque()
        self._is_told = False

    def note(self, record: Record) -> None:
        """Keep it for a reply."""
        texts = len(record.name) + len(record.unit) + sum(map(len, record.dimensions))
        is_short = texts <= NAME_CHARS_MAX and len(record.request) <= REQUEST_CHARS_MAX
        self._waiting.append(record if is_short else _short(record))
        if len(self._waiting) > RECORDS_MAX:
            self._squeeze()

    def take(self) -> list[Record]:
        """What the next reply shall carry, the oldest first; the rest waits for the one after."""
        taken: list[Record] = []
        size, before = 0, ""
        while self._waiting:
            record = self._waiting[0]
            size += _bytes(record, before)
            if taken and size > REPLY_BYTES_MAX:
                break
            before = record.request
            taken.append(self._waiting.popleft())
        return taken

    def _squeeze(self) -> None:
        waiting: list[Record] = []
        while self._waiting:
            waiting.append(self._waiting.popleft())
        kept = together(waiting)
        if len(kept) > RECORDS_MAX // 2:
            lost, kept = len(kept) - RECORDS_MAX // 2, kept[-RECORDS_MAX // 2 :]
            if not self._is_told:
                self._is_told = True
                text = "model %s records more metrics than replies can carry: %d values are lost (told once)"
                log.warning(text, self._model, lost)
        self._waiting.extendleft(reversed(kept))


def together(records: Iterable[Record]) -> list[Record]:
    """The same with less: one record for each series of a counter or gauge, in the place of its first."""
    kept: dict[object, Record] = {}
    for number, record in enumerate(records):
        series = (record.type, record.name, record.unit, record.dimensions)
        before = kept.get(series)
        if before is not None and record.type == COUNTER:
            record = record._replace(value=before.value + record.value, request="")
        is_whole = record.type in (COUNTER, GAUGE)
        kept[series if is_whole else number] = record  # each value of a histogram counts
    return list(kept.values())


def _short(record: Record) -> Record:
    name, unit = record.name[:NAME_CHARS_MAX], record.unit[:NAME_CHARS_MAX]
    dimensions = tuple(text[:NAME_CHARS_MAX] for text in record.dimensions)
    return Record(record.type, name, unit, record.value, dimensions, record.request[:REQUEST_CHARS_MAX])


def _bytes(record: Record, before: str) -> int:
    request = 0 if record.request == before else len(record.request)
    texts = len(record.name) + len(record.unit) + sum(map(len, record.dimensions))
    return _RECORD_BYTES + texts + 2 * len(record.dimensions) + request
