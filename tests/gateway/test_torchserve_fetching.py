"""headway_gateway.torchserve.fetching: the program that fetches what a start names, and who calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headway.cli._torchserve.fetching import PROGRAM, fetched, forget
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration
from headway.torchserve.startup import Fetched, Startup
from headway_gateway.torchserve.archives import Archives
from headway_gateway.torchserve.fetching import fetch_all

ERRORS = 2


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for folder, names in {"store": ["old.mar"], "far": ["old.mar", "new.mar"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(f"{folder} {name}")
    return tmp_path / "store"


def test_each_url_has_its_own_fate(store: Path) -> None:
    far = f"file://{store.parent}/far"
    asked = [f"{far}/new.mar", f"{far}/old.mar", f"{far}/none.mar", "http://host/x.mar", f"{far}/new.mar"]
    fates = fetch_all(Archives(str(store), "file://.*", reuse=True), asked, threading.Event())
    assert fates == {
        asked[0]: {"path": str(store / "new.mar"), "downloaded": True},
        asked[1]: {"path": str(store / "old.mar"), "downloaded": False},
        asked[2]: {"refused": f"Failed to download archive from: {asked[2]}"},
        asked[3]: {"refused": "Given URL http://host/x.mar does not match any allowed URL(s)"},
    }
    assert (store / "new.mar").read_text() == "far new.mar"
    assert (store / "old.mar").read_text() == "store old.mar"


def test_the_program_fetches_into_the_store(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = f"file://{store.parent}/far/new.mar"
    properties = Properties(model_store=str(store), allowed_urls="file://.*")
    assert fetched(properties, [url], ERRORS) == {url: Fetched(str(store / "new.mar"), True)}
    assert (store / "new.mar").read_text() == "far new.mar"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("code", ["exit(3)", "input(); exit(3)"])
def test_a_program_that_ends_has_fetched_nothing(store: Path, code: str) -> None:
    properties = Properties(model_store=str(store))
    fates = fetched(properties, ["http://h/x.mar"], ERRORS, (sys.executable, "-c", code))
    assert fates == {"http://h/x.mar": Fetched(refused="what fetches archives ended with code 3")}


def test_nothing_is_started_where_there_is_nothing_to_fetch() -> None:
    assert fetched(Properties(), [], ERRORS, ("/no/such/program",)) == {}


def test_the_program_gives_up_and_leaves_nothing_when_nobody_waits_for_it(store: Path) -> None:
    pipe = store.parent / "far" / "slow.mar"
    with pipe.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)  # has no end in this test
    asked = f'{{"store": "{store}", "allowed_urls": ".*", "urls": ["file://{pipe}"]}}\n'
    process = subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(asked.encode())
    process.stdin.flush()
    while not list(store.glob(".fetch-*/*")):
        assert process.poll() is None
        time.sleep(0.01)
    _, said = process.communicate(timeout=30)  # which closes its stdin
    assert b"the client left" in said
    assert [path.name for path in store.iterdir()] == ["old.mar"]


def test_what_was_fetched_for_nothing_goes_and_what_the_store_had_stays(store: Path) -> None:
    for name in ("served.mar", "broken.mar"):
        (store / name).touch()
    fates = {
        name: Fetched(str(store / name), name != "old.mar")
        for name in ("served.mar", "broken.mar", "old.mar")
    }
    served = Registration("m", "1.0", "http://h/served.mar", str(store / "served.mar"))
    forget(fates, Startup([served]))
    assert sorted(path.name for path in store.iterdir()) == ["old.mar", "served.mar"]
