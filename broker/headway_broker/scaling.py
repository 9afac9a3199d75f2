from typing import NamedTuple


class Load(NamedTuple):
    waiting: int
    oldest_wait_s: float
    busy: float
    own: float
    ready: int
    wanted: int
    idle_s: float


class Wish(NamedTuple):
    copies: int
    reason: str


class Scaler:
    def decide(self, key, least, most, load, slo_s, now):
        return Wish(min(max(load.wanted, least), most), "")

    def forget(self, key):
        pass
