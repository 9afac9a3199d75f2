"""Where a version's files are: as the broker says, or in this host's own store."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.messages import Load
from headway_worker.places import folder_of, spec_of
from tests.worker.bench import DOUBLE, Bench


def test_without_a_store_of_its_own_the_folder_is_where_the_broker_says() -> None:
    assert folder_of(Load("m", "1", "/srv/models/m/1"), None) == Path("/srv/models/m/1")


def test_with_a_store_of_its_own_the_broker_s_path_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    assert folder_of(Load("m", "1", "/elsewhere/x/7"), tmp_path) == tmp_path / "m" / "1"


def test_a_version_that_is_a_word_is_found_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "m" / "2.0+cu118").mkdir(parents=True)
    assert folder_of(Load("m", "2.0+cu118", "/x"), tmp_path) == tmp_path / "m" / "2.0+cu118"


def test_what_the_store_lacks_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"model_store: there is no {tmp_path}/m/1 on this host"):
        folder_of(Load("m", "1", "/srv/models/m/1"), tmp_path)


@pytest.mark.parametrize(
    ("model", "version"), [("..", "1"), ("m", ".."), ("a/b", "1"), ("m", "1/.."), ("", "1"), ("m", "1.tmp")]
)
def test_names_do_not_lead_out_of_the_store(tmp_path: Path, model: str, version: str) -> None:
    with pytest.raises(SettingsError, match="cannot be in a store"):
        folder_of(Load(model, version, "/x"), tmp_path / "store")


def test_a_spec_has_the_broker_s_names_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "other" / "9"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text('backend = "python"\n')
    assert spec_of(Load("m", "1", "/x"), folder).key == ("m", "1")


def test_a_runner_with_a_store_loads_from_there_and_says_what_is_missing(bench: Bench) -> None:
    bench.write(model=DOUBLE)
    bench.runner._store = bench.store
    assert bench.load(folder=Path("/nonexistent/m/1")).state == "ready"
    copy = bench.load("2", folder=Path("/nonexistent/m/2"))
    assert copy.state == "failed"
    assert "model_store: there is no" in copy.detail
