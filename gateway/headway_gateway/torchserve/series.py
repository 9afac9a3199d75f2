"""One series of a metric: its labels, and the lines it has in a metrics log.

Pure. Knows: the forms of both. Must not know: files, Prometheus, when anything is written.

A line of `ts_metrics.log`:
    2026-11-23T00:32:42,331 - QueueTime.Milliseconds:0.0|#Level:Host|#hostname:h,timestamp:1795393962
and of `model_metrics.log`, where a value was recorded for requests or for none ("null"):
    ... - HandlerTime.ms:0.48|#ModelName:m,Level:Model|#hostname:h,requestID:ID,timestamp:1795393962
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite

from headway.torchserve.metrics import Declared
from headway_gateway.torchserve.exposition import number

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = "headway_"
_HOST = ("Hostname", "hostname")


Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Series:
    """Equal to itself alone; two of one `key` are the same series. `labels`: pairs, in the order in which
    they are shown."""

    __slots__ = ("declared", "head", "key", "labels", "tail")

    def __init__(self, declared: Declared, labels: tuple[tuple[str, str], ...], host: str) -> None:
        self.declared = declared
        self.labels = labels
        self.key: Key = (declared.type, declared.name, labels)
        dimensions = ",".join(f"{name}:{value}" for name, value in labels if name not in _HOST)
        self.head = plain(f"{declared.name}.{declared.unit}:")  # of a line, before the value
        self.tail = plain(f"|#{dimensions}|#hostname:{host}")  # and after it


Noted = tuple[tuple[Series, ...], tuple[float, ...]]  # several series, and a value of each


def server_lines(begin: str, noted: Iterable[Noted], epoch_s: int) -> str:
    """The server's own metrics. `begin`: what every log line begins with. PERF: the same series are noted
    together again and again, so all but their values is put together once."""
    lines, forms = [], dict[tuple[Series, ...], str]()
    for series, values in noted:
        if (form := forms.get(series)) is None:
            form = forms[series] = "".join([_form(begin, one, epoch_s) for one in series])
        lines.append(form % (values if isfinite(sum(values)) else tuple(map(number, values))))
    return "".join(lines)


def _form(begin: str, series: Series, epoch_s: int) -> str:
    """A line, with %s for its value."""
    around = (f"{begin}{series.head}", f"{series.tail},timestamp:{epoch_s}\n")
    return "%s".join([text.replace("%", "%%") for text in around])


def model_lines(begin: str, noted: Iterable[tuple[Series, float, str]], epoch_s: int) -> str:
    """Those of models, each with the ids of the requests that it was recorded for."""
    lines = []
    for series, value, request in noted:
        whose = f"{series.tail},requestID:{plain(request) or 'null'}"
        lines.append(f"{begin}{series.head}{number(value)}{whose},timestamp:{epoch_s}\n")
    return "".join(lines)


def is_presentable(declared: Declared, labels: Iterable[str]) -> bool:
    """Whether Prometheus can read it, and it is none of Headway's own."""
    name = declared.name
    is_name = _METRIC.fullmatch(name) is not None and not name.startswith(_OURS)
    names = list(labels)
    return is_name and len(set(names)) == len(names) and all(map(_LABEL.fullmatch, names))


def plain(text: str) -> str:
    """On one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
