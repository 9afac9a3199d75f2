"""Closed-loop load, in a process of its own: so many callers, each asks again when it has its answer.

    python benchmarks/load.py http 127.0.0.1:8080 --callers 64 --seconds 5
    python benchmarks/load.py direct ipc:///run/headway/broker.sock --callers 512 --seconds 5

Prints one JSON object: requests, errors, seconds, p50_ms, p99_ms. The first tenth of the time is warm-up and
does not count. A closed loop under-reports latency when the server stalls (nobody asks meanwhile); it
answers how fast the server can be driven, not how long users wait at a given rate.

The HTTP side speaks just enough HTTP/1.1 itself, because a client library would cost more than the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from typing import Any

import numpy as np
import uvloop

from headway import Client
from headway.errors import HeadwayError

X = np.arange(16, dtype=np.float32)


class Tally:
    """Latencies of the answers that came after the warm-up."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter() + seconds / 10
        self.end = time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.errors = 0

    def add(self, asked: float, ok: bool) -> bool:
        """Count an answer; False when the time is over."""
        now = time.perf_counter()
        if now > self.start:
            self.latencies.append(now - asked)
            self.errors += not ok
        return now < self.end

    def facts(self) -> dict[str, Any]:
        p50, p99 = np.percentile(self.latencies, (50, 99)) * 1000
        seconds = self.end - self.start
        counts = {"requests": len(self.latencies), "errors": self.errors, "seconds": round(seconds, 3)}
        return {**counts, "p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def http_request(host: str, model: str) -> bytes:
    """An Open Inference Protocol request with 16 floats as binary data, in and out."""
    tensor = {"name": "x", "shape": [1, 16], "datatype": "FP32", "parameters": {"binary_data_size": X.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = head + X.tobytes()
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {len(head)}\r\n\r\n"
    ).encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request on it at a time."""

    def __init__(self, request: bytes, tally: Tally, done: asyncio.Future[None]) -> None:
        self.request, self.tally, self.done = request, tally, done
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self.buffer = b""
        if self.tally.add(self.asked, head.startswith(b"HTTP/1.1 200")):
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load_http(address: str, model: str, callers: int, seconds: float) -> dict[str, Any]:
    host, port = address.rsplit(":", 1)
    request, tally, loop = http_request(address, model), Tally(seconds), asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(callers)]
    for future in done:
        await loop.create_connection(lambda future=future: Connection(request, tally, future), host, int(port))
    await asyncio.gather(*done)
    return tally.facts()


def load_direct(address: str, model: str, callers: int, seconds: float) -> dict[str, Any]:
    """One thread keeps `callers` requests in flight; with one, it waits for each."""
    with Client(address) as client:
        tally = Tally(seconds)
        flight: deque[tuple[float, Any]] = deque()
        going = True
        while going or flight:
            while going and len(flight) < callers:
                flight.append((time.perf_counter(), client.submit(model, {"x": X})))
            asked, future = flight.popleft()
            going = tally.add(asked, answered(future)) and going
        return tally.facts()


def answered(future: Any) -> bool:
    try:
        return bool(future.result()["y"][1] == 2.0)
    except HeadwayError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("way", choices=("http", "direct"))
    parser.add_argument("address")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    how = (options.address, options.model, options.callers, options.seconds)
    facts = uvloop.run(load_http(*how)) if options.way == "http" else load_direct(*how)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
