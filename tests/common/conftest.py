"""Fixtures that the tests of the clients share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.echo import EchoBroker


@pytest.fixture
def absent() -> Iterator[EchoBroker]:
    """A broker that was not started. (Its folder is not `tmp_path`: a socket's path must be short.)"""
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        broker = EchoBroker(Path(folder))
        yield broker
        broker.stop()


@pytest.fixture
def broker(absent: EchoBroker) -> EchoBroker:
    """A broker that runs."""
    return absent.start()
