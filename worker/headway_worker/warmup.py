"""Runs a model that was just loaded, before anybody waits for it: to warm it, to check it, to measure it.

Knows: examples of inputs, which sizes of batches to run, clocks. Must not know: threads, orders, torch.

Every size is run once to warm it, then a few times to measure. What a batch costs goes to the broker
(`batch_us`), which forms batches by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from headway.models import ModelSpec, TensorSpec
from headway_worker import collate
from headway_worker.buckets import sizes_to_try
from headway_worker.collate import Values
from headway_worker.inputs import example
from headway_worker.loaded import Loaded
from headway_worker.replies import Answer
from headway_worker.request import ModelRequest
from headway_worker.tracks import Clock

LONG_S = 1.0  # a full batch that takes so long to warm and measure: sizes that can be guessed are left out
MEASURE_S = 0.1  # a size is measured again while it took less than this
MEASURES_MAX = 3


def warm_up(loaded: Loaded, clock: Clock) -> dict[str, Any]:
    """Run batches of examples, and check what comes out. To be called under `torch.inference_mode()`.

    Returns facts: `warmup`, the milliseconds of the first run by rows, or why there was none; `batch_us`, the
    microseconds of later runs by rows; what goes in and comes out; what the track says of itself.
    Raises: ModelError naming the output that is not as declared; whatever the model raises.
    """
    spec = loaded.spec
    own = getattr(loaded.backend, "warmup", None)
    if callable(own):
        own()
    facts = {"inputs": _signature(spec.inputs), "outputs": _signature(spec.outputs)}
    reason = _skipped(spec)
    if reason:
        return {"warmup": reason, **facts, **loaded.track.facts()}
    outputs, warmup, batch_us = _tried(loaded, clock)
    if not spec.outputs:  # nobody said what comes out: now it is known, for one example
        facts["outputs"] = [[n, collate.dtype_name(v), list(v.shape)] for n, v in outputs.items()]
    return {"warmup": warmup, "batch_us": batch_us, **facts, **loaded.track.facts()}


def _tried(loaded: Loaded, clock: Clock) -> tuple[Values, dict[str, float], dict[str, int]]:
    musts, mays = sizes_to_try(loaded.spec, loaded.buckets)
    outputs: Values = {}
    firsts: dict[int, float] = {}
    costs: dict[int, int] = {}
    for rows in musts:
        start = clock()
        outputs, firsts[rows], costs[rows] = _try(loaded, rows, clock)
    is_long = clock() - start > LONG_S
    for rows in [] if is_long else mays:
        outputs, firsts[rows], costs[rows] = _try(loaded, rows, clock)
    return outputs, _by_rows(firsts), _by_rows(costs)


def _try(loaded: Loaded, rows: int, clock: Clock) -> tuple[Values, float, int]:
    """One example's outputs, the first run's milliseconds, and the microseconds that a run takes."""
    requests = [_example(loaded.spec)] * rows
    start = clock()
    outputs = _run(loaded, requests, clock)
    first_ms = round((clock() - start) * 1000, 3)
    loaded.track.settle(requests, clock)
    took_s: list[float] = []
    while len(took_s) < MEASURES_MAX and sum(took_s) < MEASURE_S:
        _run(loaded, requests, clock)
        took_s.append(loaded.compute_s)
    return outputs, first_ms, max(1, round(median(took_s) * 1e6))


def _run(loaded: Loaded, requests: Sequence[ModelRequest], clock: Clock) -> Values:
    share = loaded.land(loaded.track.launch(loaded.track.collate(requests), clock), requests)[0]
    assert not isinstance(share, Answer), "an example is a request with tensors"
    return share


def _example(spec: ModelSpec) -> ModelRequest:
    tensors = {tensor.name: example(tensor) for tensor in spec.inputs}
    return ModelRequest(tensors={n: t for n, t in tensors.items() if t is not None})


def _by_rows(values: dict[int, Any]) -> dict[str, Any]:
    return {str(rows): values[rows] for rows in sorted(values)}


def _skipped(spec: ModelSpec) -> str:
    if not spec.inputs:
        return "skipped: no inputs are declared"
    names = [tensor.name for tensor in spec.inputs if tensor.example_shape is None]
    return f"skipped: no warmup_shape for {', '.join(names)}" if names else ""


def _signature(specs: Sequence[TensorSpec]) -> list[list[Any]]:
    return [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in specs]
