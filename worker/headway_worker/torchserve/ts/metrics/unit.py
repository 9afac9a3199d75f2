"""`ts.metrics.unit`: units by their short names."""

LONG = {
    "ms": "Milliseconds", "s": "Seconds", "percent": "Percent", "count": "Count", "B": "Bytes",
    "kB": "Kilobytes", "MB": "Megabytes", "GB": "Gigabytes", "unit": "unit", "": "unit",
}  # fmt: skip


class Units:
    """What handlers of other servers look for."""

    def __init__(self) -> None:
        self.units = dict(LONG)
