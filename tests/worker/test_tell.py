"""headway_worker.tell: what a worker says to systemd, heard at a real socket; the session is a real one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.messages import Batch, Batches, BatchReply, Copy, Heartbeat, Result, Welcome
from headway.notify import Notifier
from headway_worker.session import About, Drain, Session
from headway_worker.tell import LEASE_MARGIN_S, Tell
from tests.ear import Ear

NONCE, OTHER = b"broker-1", b"broker-2"


class Worker:
    """A session, what it tells, and who hears it."""

    def __init__(self, path: Path, watchdog_s: float | None = 4.0) -> None:
        self._ear = Ear(path)
        self.session = Session(About("w", "host", 7, "cpu"))
        self.tell = Tell(self.session, self._ear.notifier(watchdog_s))

    def heard(self, now: float) -> str:
        """What it says at `now`."""
        self.tell.tell(now)
        return "".join(self._ear.heard())

    def join(self, now: float = 0.0) -> None:
        self.session.handle(Welcome(NONCE, 500), now)

    def give(self, id: int, lease_ms: int, now: float) -> None:
        self.session.handle(Batches([Batch(id, "m", "1", lease_ms, [])]), now)

    def answer(self, id: int, now: float) -> None:
        self.session.handle(Result(id, 0, [BatchReply(0, b"", {})]), now)

    def close(self) -> None:
        self._ear.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path / "notify")
    yield made
    made.close()


def test_it_is_ready_once_it_is_on_the_roster_and_says_so_once(worker):
    assert "READY" not in worker.heard(0.0)
    worker.join()
    assert "READY=1" in worker.heard(2.0)
    assert "READY" not in worker.heard(4.0)


def test_while_it_waits_for_its_broker_it_asks_for_more_time_to_start(worker):
    said = worker.heard(0.0)
    assert "EXTEND_TIMEOUT_USEC=30000000" in said
    assert "STATUS=waits for the broker; 0 models ready, idle\n" in said
    worker.join()
    worker.heard(6.0)
    assert "EXTEND" not in worker.heard(8.0)


def test_its_status_names_its_models_and_what_it_does(worker):
    worker.join()
    worker.session.handle(Copy("a", "1", "ready", "", {}), 0.0)
    worker.session.handle(Copy("b", "1", "ready", "", {}), 0.0)
    worker.session.handle(Copy("c", "1", "loading", "", {}), 0.0)
    assert "STATUS=2 models ready, 1 loading, idle\n" in worker.heard(0.0)
    worker.give(1, 60_000, 1.0)
    assert "STATUS=2 models ready, 1 loading, busy\n" in worker.heard(2.0)


def test_a_worker_thrown_off_the_roster_stays_ready_and_says_that_it_waits(worker):
    worker.join()
    worker.heard(0.0)
    worker.session.handle(Heartbeat(OTHER), 1.0)
    said = worker.heard(2.0)
    assert "STATUS=waits for the broker; 0 models ready, idle\n" in said
    assert "EXTEND" not in said and "READY" not in said


def test_a_batch_within_its_lease_keeps_the_watchdog_fed(worker):
    worker.join()
    worker.give(1, 60_000, 100.0)
    assert "WATCHDOG=1" in worker.heard(100.0)
    assert "WATCHDOG=1" in worker.heard(160.0 + LEASE_MARGIN_S - 0.1)


def test_a_batch_beyond_its_lease_and_the_margin_does_not(worker):
    worker.join()
    worker.give(1, 60_000, 100.0)
    assert "WATCHDOG" not in worker.heard(160.0 + LEASE_MARGIN_S)
    worker.answer(1, 200.0)
    assert "WATCHDOG=1" in worker.heard(200.0)


def test_the_runner_is_watched_also_for_a_batch_that_the_broker_has_given_up(worker):
    worker.join()
    worker.give(1, 1_000, 100.0)
    worker.session.handle(Heartbeat(OTHER), 100.5)
    worker.session.handle(Welcome(OTHER, 500), 101.0)
    assert "WATCHDOG" not in worker.heard(102.0 + LEASE_MARGIN_S)


def test_a_worker_that_drains_says_that_it_stops_once(worker):
    worker.join()
    worker.heard(0.0)
    worker.session.handle(Drain("SIGTERM"), 1.0)
    said = worker.heard(2.0)
    assert "STOPPING=1" in said and "draining" in said
    assert "STOPPING" not in worker.heard(4.0)


def test_its_loop_waits_no_longer_than_the_watchdog_allows(worker, tmp_path):
    assert worker.tell.wait_s == 1.0
    assert Tell(worker.session, Notifier()).wait_s == math.inf


def test_without_systemd_nothing_is_said(tmp_path):
    tell = Tell(Session(About("w", "host", 7, "cpu")), Notifier())
    tell.tell(0.0)
    tell.tell(1e9)
