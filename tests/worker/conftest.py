"""Fixtures that the worker's tests share."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.worker.bench import Bench


@pytest.fixture(scope="module")
def settled() -> None:
    """A runner collects garbage at every load and unload. What is here before the first one stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def bench(tmp_path: Path, settled: None) -> Bench:
    from tests.worker.bench import Bench  # here, so that the session's tests do not wait for torch

    return Bench(tmp_path)
