"""Fixtures that the worker's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.worker.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    from tests.worker.bench import Bench  # here, so that the session's tests do not wait for torch

    return Bench(tmp_path)
