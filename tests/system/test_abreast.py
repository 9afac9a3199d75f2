"""Running batches and coroutines through real processes: who joins, who leaves, and what a kill does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headway import Body, Client
from headway.errors import WorkerLost
from tests.system.stack import Up, serving, until

pytestmark = pytest.mark.system

READY_S = 30.0
SOURCES = Path(__file__).parents[1] / "torchserve" / "sources"
MODELS = {"turns": "continuous = true\nbatch_size_max = 2\n", "later": "in_flight_max = 20\n"}
# As long as it is let: who rides with it is seen by what the others are told.
LONG = {"n": 100_000, "sleep_ms": 5}


def add_archive(folder: Path, name: str, toml: str) -> None:
    """A plain folder with one of the differential set's handlers, as a version of a model of that name."""
    archive = folder / "models" / name / "1" / "archive"
    (archive / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": name, "handler": "handler.py", "modelVersion": "1"}}
    (archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (archive / "handler.py").write_text((SOURCES / name / "handler.py").read_text())
    keys = 'backend = "torchserve"\nfile = "archive"\nresponse_timeout_s = 2\n'
    (archive.parent / "model.toml").write_text(keys + toml)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    for name, toml in MODELS.items():
        add_archive(folder, name, toml)
    with serving(folder, workers=3) as running:  # two are killed
        until(lambda: all(running.ready_copies(name) == 1 for name in MODELS), READY_S)
        yield running


def asking(**said: Any) -> Body:
    return Body(json.dumps(said).encode(), "application/json")


def test_one_joins_the_running_batch_and_who_leaves_is_not_in_it_any_more(up: Up) -> None:
    with Client(up.direct) as client, closing(client.stream("turns", asking(**LONG))) as bodies:
        next(bodies)
        widths = client.predict("turns", asking(n=3, say="width")).text()
        assert widths == "2;2;2;", "it rode with the other"
        bodies.close()
        until(lambda: client.predict("turns", asking(n=2, say="width")).text() == "1;1;")


def test_who_takes_no_pieces_may_take_longer_than_the_response_timeout(up: Up) -> None:
    with Client(up.direct) as client:
        asked = asking(n=205, sleep_ms=10)
        assert client.predict("turns", asked, timeout_s=30.0).text().count(";") == 205


def test_a_kill_ends_what_has_begun_and_the_rest_runs_elsewhere(up: Up) -> None:
    with Client(up.direct) as client, ThreadPoolExecutor(1) as threads:
        bodies = client.stream("turns", asking(**LONG), timeout_s=60.0)
        next(bodies)
        whole = threads.submit(
            client.predict, "turns", asking(n=50, sleep_ms=20, say="width"), timeout_s=60.0
        )
        until(lambda: client.stats()["workers"] != [] and _batches(client) == 2)
        up.kill_worker_of("turns")
        with pytest.raises(WorkerLost, match="after the reply had begun"):
            list(bodies)
        assert whole.result().text() == "1;" * 50
    until(lambda: all(up.ready_copies(name) == 1 for name in MODELS), READY_S)


def _batches(client: Client) -> int:
    return sum(int(worker["batches"]) for worker in client.stats()["workers"])


def test_a_coroutine_waits_for_one_that_comes_after_it_and_runs_again_after_a_kill(up: Up) -> None:
    with Client(up.direct) as client, ThreadPoolExecutor(2) as threads:
        first = threads.submit(client.predict, "later", asking(wait="a", say="first"), timeout_s=60.0)
        until(lambda: _batches(client) == 1)
        bodies = client.stream("later", asking(n=100_000), timeout_s=60.0)
        next(bodies)
        up.kill_worker_of("later")
        with pytest.raises(WorkerLost, match="after the reply had begun"):
            list(bodies)
        until(lambda: _batches(client) == 1, READY_S)
        assert client.predict("later", asking(ring="a", say="second"), timeout_s=60.0).text() == "second"
        assert first.result().text() == "first"
