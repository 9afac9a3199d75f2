"""Load through Triton's own client library, closed loop; runs in Triton's environment.

    python -m benchmarks.load_triton http 127.0.0.1:8000            one at a time
    python -m benchmarks.load_triton grpc 127.0.0.1:8001 --callers 512
    python -m benchmarks.load_triton shm 127.0.0.1:8000 --model payload
    python -m benchmarks.load_triton grpc-shm 127.0.0.1:8001 --model payload

`shm` and `grpc-shm`: the input is copied into system shared memory for every request, as a caller with a new
image must do, and the output is read from there. Prints what `load.py` prints.

Must not import anything of Headway: it is not installed there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import time
from collections.abc import Callable
from typing import Any

import tritonclient.grpc as tc_grpc
import tritonclient.http as tc_http
import tritonclient.utils.shared_memory as shm

from benchmarks.inputs import EXAMPLES, Example
from benchmarks.tally import Closed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("way", choices=("http", "grpc", "shm", "grpc-shm"))
    parser.add_argument("address")
    parser.add_argument("--model", choices=tuple(EXAMPLES), default="tiny")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    o = parser.parse_args()
    example, library = EXAMPLES[o.model], tc_grpc if o.way.startswith("grpc") else tc_http
    with library.InferenceServerClient(o.address) as client:
        if o.way.endswith("shm"):
            facts = shared_memory(library, client, example, o.seconds)
        elif o.callers == 1:
            facts = plain(library, client, example, o.seconds)
        else:
            facts = in_flight(client, example, o.callers, o.seconds)
    print(json.dumps(facts))


def closed(ask: Callable[[], bytes], example: Example, seconds: float) -> dict[str, Any]:
    """`ask` again and again; it returns the output's bytes."""
    tally, going = Closed(time.monotonic_ns(), seconds), True
    while going:
        asked = time.monotonic_ns()
        y = ask()
        going = tally.add(time.monotonic_ns(), asked, example.is_right(y))
    return tally.facts()


def plain(library: Any, client: Any, example: Example, seconds: float) -> dict[str, Any]:
    def ask() -> bytes:
        x = library.InferInput("x", [1, *example.shape], "FP32")
        x.set_data_from_numpy(example.x[None])
        return client.infer(example.model, [x]).as_numpy("y").tobytes()

    return closed(ask, example, seconds)


def shared_memory(library: Any, client: Any, example: Example, seconds: float) -> dict[str, Any]:
    """Two regions, registered once; the input is written anew for each request."""
    sizes = {"x": example.x.nbytes, "y": 4 * example.outputs}
    regions = {}
    try:
        for name, size in sizes.items():
            region, key = f"bench_{name}_{os.getpid()}", f"/triton_bench_{name}_{os.getpid()}"
            regions[name] = (region, shm.create_shared_memory_region(region, key, size))
            client.register_system_shared_memory(region, key, size)
        return closed(_shared_ask(library, client, example, regions), example, seconds)
    finally:
        for region, memory in regions.values():
            client.unregister_system_shared_memory(region)
            shm.destroy_shared_memory_region(memory)


def _shared_ask(library: Any, client: Any, example: Example, regions: Any) -> Callable[[], bytes]:
    (x_region, x_memory), (y_region, y_memory) = regions["x"], regions["y"]
    x = library.InferInput("x", [1, *example.shape], "FP32")
    x.set_shared_memory(x_region, example.x.nbytes)
    y = library.InferRequestedOutput("y")
    y.set_shared_memory(y_region, 4 * example.outputs)

    def ask() -> bytes:
        shm.set_shared_memory_region(x_memory, [example.x])
        client.infer(example.model, [x], outputs=[y])
        return shm.get_contents_as_numpy(y_memory, "float32", [1, example.outputs]).tobytes()

    return ask


def in_flight(client: Any, example: Example, callers: int, seconds: float) -> dict[str, Any]:
    """gRPC with so many requests in flight from one thread."""
    x = tc_grpc.InferInput("x", [1, *example.shape], "FP32")
    x.set_data_from_numpy(example.x[None])
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        asked = time.monotonic_ns()
        client.async_infer(example.model, [x], lambda result, error: answers.put((asked, result, error)))

    tally, open = Closed(time.monotonic_ns(), seconds), callers
    for _ in range(callers):
        ask()
    while open:
        asked, result, error = answers.get(timeout=seconds + 60)
        ok = error is None and example.is_right(result.as_numpy("y").tobytes())
        if tally.add(time.monotonic_ns(), asked, ok):
            ask()
        else:
            open -= 1
    return tally.facts()


if __name__ == "__main__":
    main()
