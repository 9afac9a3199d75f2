"""The thread that reads the model store."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway_broker.events import StoreRead
from headway_broker.storereader import StoreReader


def add(store: Path, version: str, toml: str = 'backend = "python"\nfile = "model.py"') -> None:
    folder = store / "m" / version
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("")
    (folder / "model.toml").write_text(toml)


def read_by(reader: StoreReader, timeout_s: float = 10.0) -> list[StoreRead]:
    select.select([reader.fd], [], [], timeout_s)
    return reader.take()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[StoreReader]:
    reader = StoreReader(tmp_path, 0.0)
    reader.start()
    yield reader
    reader.close()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[StoreReader]:
    reader = StoreReader(tmp_path, 0.05)
    reader.start()
    yield reader
    reader.close()


def test_it_reads_when_it_is_asked(asked: StoreReader, tmp_path: Path) -> None:
    add(tmp_path, "1")
    add(tmp_path, "2", "backedn = 1")
    assert read_by(asked, 0.2) == []
    asked.ask()
    [read] = read_by(asked)
    assert [spec.key for spec in read.specs] == [("m", "1")]
    assert "backedn" in read.broken[("m", "2")]


def test_a_store_that_cannot_be_read_is_an_error_and_not_an_empty_store(
    asked: StoreReader, tmp_path: Path
) -> None:
    tmp_path.rmdir()
    asked.ask()
    [read] = read_by(asked)
    assert str(tmp_path) in read.error and not read.specs
    tmp_path.mkdir()


def test_it_notices_new_versions_by_itself(watching: StoreReader, tmp_path: Path) -> None:
    time.sleep(0.2)
    assert read_by(watching, 0.2) == []
    add(tmp_path, "1")
    [read] = read_by(watching)
    assert [spec.key for spec in read.specs] == [("m", "1")]
    assert read_by(watching, 0.3) == [], "once"


def test_a_version_without_its_model_toml_is_not_noticed(watching: StoreReader, tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "weights.bin").write_bytes(b"half")
    assert read_by(watching, 0.4) == []


def test_what_it_notices_by_itself_is_told_from_what_it_was_asked_for(
    watching: StoreReader, tmp_path: Path
) -> None:
    time.sleep(0.2)
    add(tmp_path, "1")
    [read] = read_by(watching)
    assert not read.asked
    watching.ask()
    [read] = read_by(watching)
    assert read.asked


def test_a_store_that_went_away_and_came_back_is_read_again(watching: StoreReader, tmp_path: Path) -> None:
    add(tmp_path, "1")
    watching.ask()
    assert read_by(watching)[0].specs
    away = tmp_path.with_name(f"{tmp_path.name}-away")
    tmp_path.rename(away)
    [read] = read_by(watching)
    assert read.error and not read.specs
    away.rename(tmp_path)
    while not (read := read_by(watching)[0]).specs:
        assert read.error
    assert [spec.key for spec in read.specs] == [("m", "1")]


def test_a_store_with_thousands_of_versions_is_read(asked: StoreReader, tmp_path: Path) -> None:
    for version in range(2000):
        add(tmp_path, str(version))
    asked.ask()
    [read] = read_by(asked, 60.0)
    assert len(read.specs) == 2000
