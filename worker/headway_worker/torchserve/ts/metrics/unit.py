"""`ts.metrics.unit`: units by their short names."""

from headway.torchserve.metrics import LONG


class Units:
    """What handlers of other servers look for."""

    def __init__(self) -> None:
        self.units = dict(LONG)
