"""The run directory for as long as `headway up` lives, and the checks made before anything is started.

Knows: files, one socket to try an address with. Must not know: what the processes keep in the directory
beyond its sockets.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.errors import SettingsError
from headway.settings import Shared, default_run_dir

SOCKET_PATH_MAX = 107  # characters, the kernel's sockaddr_un less its end


@contextmanager
def run_dir_of(settings: Shared) -> Iterator[None]:
    """Makes the run directory, ours alone, where there is none, and removes it again if it made it.

    In a directory that was there, sockets that nobody listens on any more are removed (a broker removes
    its own, unless it was killed).

    Raises: SettingsError when it cannot be made, or is the default one and not ours alone.
    """
    made = _make(settings.run_dir)
    try:
        yield
    finally:
        if made:
            shutil.rmtree(settings.run_dir, ignore_errors=True)
        else:
            _remove_dead_sockets(settings)


def check_run_dir(settings: Shared) -> None:
    """Raises: SettingsError when the sockets' paths in it are too long."""
    longest = max(settings.callers_address, settings.workers_address, key=len).removeprefix("ipc://")
    if len(os.fsencode(longest)) > SOCKET_PATH_MAX:
        raise SettingsError(
            f"run_dir: {longest} is longer than the {SOCKET_PATH_MAX} characters that a socket's path may "
            "have; name a shorter --run-dir"
        )


def check_store(store: Path) -> None:
    """Raises: SettingsError when the model store is not there."""
    if not store.is_dir():
        what = "is not a folder" if store.exists() else "does not exist"
        raise SettingsError(f"model_store: {store} {what}")


def check_http(said: str, setting: str = "http") -> tuple[str, int]:
    """The host and port in it. Raises: SettingsError when they are none, or somebody listens there."""
    host, _, port = said.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"{setting}: {said!r} is not HOST:PORT")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
            probe.listen()  # SO_REUSEADDR lets two bind, but not two listen
        except OSError as error:
            raise SettingsError(f"{setting}: cannot listen on {said}: {error.strerror}") from None
    return host, int(port)


def _make(folder: Path) -> bool:
    if os.path.lexists(folder):
        _check_ours(folder)
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise SettingsError(f"run_dir: cannot make {folder}: {error.strerror}") from None
    return True


def _remove_dead_sockets(settings: Shared) -> None:
    for address in (settings.callers_address, settings.workers_address):
        path = address.removeprefix("ipc://")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)  # somebody else's broker, which answers here, keeps it
            except ConnectionRefusedError:
                Path(path).unlink(missing_ok=True)
            except OSError:
                continue


def _check_ours(folder: Path) -> None:
    """The default one lies where anybody may write: somebody else could have made it to listen in."""
    found = folder.lstat()
    if folder == default_run_dir() and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022
    ):
        raise SettingsError(f"run_dir: {folder} is not a folder that only you can write to; remove it")
    if not folder.is_dir():
        raise SettingsError(f"run_dir: {folder} is not a folder")
