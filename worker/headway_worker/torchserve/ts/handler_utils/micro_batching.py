"""`ts.handler_utils.micro_batching`: a batch in small parts, which overlap in a handler's three methods.

How it works. Every method (`preprocess`, `inference`, `postprocess`) has threads of its own, `parallelism` of
them. Each micro-batch goes through the three in order; while one is in `inference`, the next is in
`preprocess`. The parts' results are put together in the order of the requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

METHODS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Put in the place of a handler's `handle`: `self.handle = MicroBatching(self, 4)`."""

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: dict[str, int] | None = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self.parallelism = parallelism or dict.fromkeys(METHODS, 1)

    @property
    def parallelism(self) -> dict[str, int]:
        return self._parallelism

    @parallelism.setter
    def parallelism(self, parallelism: dict[str, int]) -> None:
        unknown = sorted(set(parallelism) - set(METHODS))
        if unknown:
            raise ValueError(f"micro_batching.parallelism: {unknown[0]!r} is not one of {', '.join(METHODS)}")
        self._parallelism = {name: max(1, int(parallelism.get(name, 1))) for name in METHODS}
        self.shutdown()

    def shutdown(self) -> None:
        """End the threads."""
        for pool in self._pools.values():
            pool.shutdown(wait=False)
        self._pools = {}

    def __del__(self) -> None:
        self.shutdown()

    def __call__(self, data: list[Any], context: Any) -> list[Any]:
        self.handler.context = context
        start = time.perf_counter()
        size = max(1, int(self.micro_batch_size))
        parts = [data[first : first + size] for first in range(0, len(data), size)]
        results = [one for future in self._flow(parts) for one in future.result()]
        metrics = getattr(context, "metrics", None)
        if metrics is not None:
            metrics.add_time("HandlerTime", round((time.perf_counter() - start) * 1000, 2), None, "ms")
        return results

    handle = __call__

    def _flow(self, parts: list[list[Any]]) -> list[Future[Any]]:
        if not self._pools:
            self._pools = {
                name: ThreadPoolExecutor(count, thread_name_prefix=f"micro-{name}")
                for name, count in self._parallelism.items()
            }
        futures: list[Future[Any]] = [_done(part) for part in parts]
        for name in METHODS:
            step = getattr(self.handler, name)
            futures = [self._pools[name].submit(_after, before, step) for before in futures]
        return futures


def _after(before: Future[Any], step: Callable[[Any], Any]) -> Any:
    data = before.result()
    with torch.inference_mode():
        return step(data)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
