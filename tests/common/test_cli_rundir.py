"""The checks before anything is started, and the run directory."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headway.cli.rundir import check_http, check_run_dir, check_store, run_dir_of
from headway.errors import SettingsError
from headway.settings import Shared


def test_a_run_directory_that_was_made_is_ours_alone_and_removed_with_all_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with run_dir_of(Shared(run_dir=folder)):
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "broker.lock").touch()
    assert not folder.exists()


def test_a_run_directory_that_was_there_stays_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with run_dir_of(Shared(run_dir=tmp_path)):
        pass
    assert (tmp_path / "mine").exists()


def test_a_socket_of_a_dead_broker_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "broker.sock"))
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(tmp_path / "workers.sock"))
        living.listen()
        with run_dir_of(Shared(run_dir=tmp_path)):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["workers.sock"]


@pytest.mark.parametrize("foul", ["link", "writable"])
def test_a_default_run_directory_that_is_not_ours_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foul: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if foul == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "headway").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "headway").mkdir()
        (tmp_path / "headway").chmod(0o777)
    with pytest.raises(SettingsError, match=r"run_dir: .* only you can write to"), run_dir_of(Shared()):
        pass


def test_a_run_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="run_dir"), run_dir_of(Shared(run_dir=folder)):
            pass


def test_a_run_directory_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    room = 107 - len("/workers.sock")
    check_run_dir(Shared(run_dir=Path("/" + "x" * (room - 1))))
    with pytest.raises(SettingsError, match=r"run_dir: .* 107 characters"):
        check_run_dir(Shared(run_dir=Path("/" + "x" * room)))


def test_a_model_store_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    check_store(tmp_path)
    with pytest.raises(SettingsError, match=r"model_store: .* does not exist"):
        check_store(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"model_store: .* is not a folder"):
        check_store(tmp_path / "file")


def test_an_address_that_somebody_listens_on_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsError, match=f"http: cannot listen on 127.0.0.1:{port}: Address already"):
            check_http(f"127.0.0.1:{port}")
    assert check_http(f"127.0.0.1:{port}") == ("127.0.0.1", port)


@pytest.mark.parametrize("http", ["8080", ":8080", "localhost", "localhost:http", "localhost:0", "x:65536"])
def test_an_address_that_is_none_is_refused(http: str) -> None:
    with pytest.raises(SettingsError, match=r"http: .* is not HOST:PORT"):
        check_http(http)
