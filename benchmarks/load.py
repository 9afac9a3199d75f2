"""Load, in a process of its own; prints one JSON object.

    python -m benchmarks.load oip 127.0.0.1:8080 --callers 64 --seconds 5
    python -m benchmarks.load oip 127.0.0.1:8080 --rate 1000 --callers 256 --seconds 5
    python -m benchmarks.load direct ipc:///run/headway/broker.sock --callers 512 --seconds 5

Without --rate the loop is closed: so many callers, each asks again when it has its answer. It says how fast
the server can be driven, not how long users wait, as nobody asks while the server stalls. With --rate it
is open: requests come at random times from a seed, and latency counts from when each was meant to be sent.
The first tenth of the time is warm-up and does not count.

Keys: answers, errors (of the whole run); requests, rate, p50_ms, p90_ms, p99_ms, p99.9_ms, max_ms, histogram.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.dialects import DIALECTS
from benchmarks.inputs import EXAMPLES
from benchmarks.load_direct import closed_async, closed_direct, closed_in_place, open_direct
from benchmarks.load_http import Target, closed_http, open_http

DIRECT = {"direct": closed_direct, "async": closed_async, "in-place": closed_in_place}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("way", choices=(*DIALECTS, *DIRECT))
    parser.add_argument("address")
    parser.add_argument("--model", choices=tuple(EXAMPLES), default="tiny")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def run(o: argparse.Namespace) -> dict[str, Any]:
    example, plan = EXAMPLES[o.model], (o.rate, o.seed)
    if o.way in DIALECTS:
        target = Target(o.way, o.address, example)
        if o.rate:
            return open_http(target, o.callers, o.seconds, plan)
        return closed_http(target, o.callers, o.seconds)
    if o.rate:
        return open_direct(o.address, example, o.seconds, plan)
    return DIRECT[o.way](o.address, example, o.callers, o.seconds)


if __name__ == "__main__":
    print(json.dumps(run(parsed())))
