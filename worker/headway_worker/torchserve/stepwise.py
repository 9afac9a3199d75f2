"""A coroutine of an archive's, run with the archive's modules in place: whenever it goes on, and only then.

Knows: how coroutines go on. Must not know: event loops, handlers, modules.

While it waits, other models' code may run, which needs its own modules in the same places. What the coroutine
starts besides (tasks, threads) goes on without that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

Entered = Callable[[], AbstractContextManager[None]]


class stepwise:
    """Awaiting it is awaiting what `call` returns; a value that nobody can await is its result."""

    def __init__(self, call: Callable[[], Any], entered: Entered) -> None:
        self._call = call
        self._entered = entered

    def __await__(self) -> Generator[Any, Any, Any]:
        with self._entered():
            made = self._call()
        if not inspect.isawaitable(made):
            return made
        steps = made.__await__()
        go_on: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            with self._entered():
                try:
                    waits_for = go_on()
                except StopIteration as end:
                    return end.value
            try:
                value = yield waits_for
            except BaseException as error:  # a cancellation, say, which the coroutine may handle
                go_on = _thrown(steps, error)
            else:
                go_on = _sent(steps, value)


def _sent(steps: Any, value: Any) -> Callable[[], Any]:
    return lambda: steps.send(value) if hasattr(steps, "send") else next(steps)


def _thrown(steps: Any, error: BaseException) -> Callable[[], Any]:
    def go_on() -> Any:
        if hasattr(steps, "throw"):
            return steps.throw(error)
        raise error

    return go_on
