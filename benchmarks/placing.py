"""How long the broker's only thread stands still while it makes a plan.

    python -m benchmarks.placing                     the table, in a few seconds

Three worlds: one where nobody knows what anything needs, on one device; one of a hundred hosts with GPUs,
where every need is known; and the same, too small for what is wanted. In each, `first` places everything,
`nothing to do` plans again when that was done, `host lost` when one host (or worker) is gone, and `scaled`
when one version shall have one copy more.

Knows: placement. Must not know: the scheduler, clocks of others.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "common"), str(ROOT / "broker")]  # as the tests have it

from headway.models import ModelSpec  # noqa: E402
from headway_broker.placement import Plan, Seat, Want, plan  # noqa: E402

GIB = 1 << 30
World = tuple[list[Want], list[Seat]]


def spec(number: int) -> ModelSpec:
    return ModelSpec(f"m{number}", "1", "/m", "python")


def unknown(workers: int, models: int, copies: int) -> World:
    seats = [Seat(b"%d" % i, f"w{i}", "h", "cpu", "cpu", {}) for i in range(workers)]
    return [Want(spec(m), copies) for m in range(models)], seats


def known(hosts: int, models: int, memory_gib: int) -> World:
    """Eight GPUs in each host; needs are skewed, and one to four copies are wanted."""
    dice = random.Random(1)
    sizes = [min(dice.paretovariate(1.2) * 0.3, 20.0) for _ in range(models)]
    wants = [Want(spec(m), dice.randint(1, 4), int(size * GIB)) for m, size in enumerate(sizes)]
    room = memory_gib * GIB
    rows = [(h, d) for h in range(hosts) for d in range(8)]
    return wants, [
        Seat(b"%d.%d" % (h, d), f"h{h}-w{d}", f"h{h}", f"cuda:{d}", f"GPU-{h}-{d}", {}, room, room)
        for h, d in rows
    ]


WORLDS: dict[str, Callable[[], World]] = {
    "1,000 workers, 500 models of 40 copies": lambda: unknown(1000, 500, 40),
    "100 hosts x 8 GPUs, 1,000 models": lambda: known(100, 1000, 24),
    "the same, too small": lambda: known(100, 1000, 2),
}


def obeyed(made: Plan, seats: list[Seat]) -> list[Seat]:
    copies = {seat.worker: dict(seat.copies) for seat in seats}
    for order in made.orders:
        if order.spec:
            copies[order.worker][order.key] = "ready"
        else:
            del copies[order.worker][order.key]
    return [seat._replace(copies=copies[seat.worker]) for seat in seats]


def rows() -> Iterator[list[str]]:
    for title, world in WORLDS.items():
        wants, seats = world()
        first, made = timed(wants, seats)
        seats = obeyed(made, seats)
        more = [wants[0]._replace(copies=wants[0].copies + 1), *wants[1:]]
        fewer = [seat for seat in seats if seat.host != "h0" and seat.worker != b"0"]
        again = [timed(wants, seats)[0], timed(wants, fewer)[0], timed(more, seats)[0]]
        yield [title, *(f"{ms:.2f}" for ms in (first, *again)), str(len(made.orders)), str(len(made.short))]


def timed(wants: list[Want], seats: list[Seat], repeats: int = 5) -> tuple[float, Plan]:
    """The best of some, in milliseconds of CPU."""
    took = []
    for _ in range(repeats):
        start = time.process_time_ns()
        made = plan(wants, seats)
        took.append((time.process_time_ns() - start) / 1e6)
    return min(took), made


HEAD = ["ms", "first", "nothing to do", "host lost", "scaled", "orders", "short"]


def main() -> None:
    for row in [HEAD, *rows()]:
        print(" | ".join(f"{cell:>38}" if i == 0 else f"{cell:>14}" for i, cell in enumerate(row)))


if __name__ == "__main__":
    main()
