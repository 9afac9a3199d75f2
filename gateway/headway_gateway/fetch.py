"""A model from a URL into the model store: fetched, unpacked, checked, and only then put in its place.

    URL ──► STORE/.fetch-x/archive ──► STORE/.fetch-x/unpacked/... ──► STORE/.fetch-x/NAME/VERSION
                                            checked, then renamed ──► STORE/NAME/VERSION

A scan of the store skips hidden folders, and a rename is all or nothing, so nobody sees half a version. The
hidden folder is removed however it ends; one that a killed process left is removed by a later fetch: its
lock is free.

What is fetched is believed nothing: its URL, and every URL that this redirects to, must be under a prefix
that the operator allowed (`origins`), and what is in the archive is counted and looked at (`unpack`).

Knows: files, HTTP. Must not know: routes, the broker. Blocks: run it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from headway.errors import InternalError, InvalidInput, SettingsError, TooLarge
from headway.settings import GatewaySettings
from headway.store import MODEL_FILE, read_version
from headway_gateway.origins import Prefix, check_url, is_zip, prefix_of, shown
from headway_gateway.unpack import Effort, unpack

PREFIX = ".fetch-"
SILENCE_S = 30.0
ABANDONED_S = 60.0  # a hidden folder older than this that nobody has locked
Check = Callable[[str], None]  # of a URL
_HEADERS = {"User-Agent": "headway", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Limits:
    """What a fetch may take."""

    prefixes: tuple[Prefix, ...]
    bytes_max: int
    timeout_s: float


def limits_of(settings: GatewaySettings) -> Limits:
    """Raises: SettingsError for a prefix that is none."""
    said = [text.strip() for text in settings.register_urls.split(",") if text.strip()]
    return Limits(
        tuple(map(prefix_of, said)), int(settings.register_bytes_max), float(settings.register_timeout_s)
    )


def into_store(url: str, wanted: tuple[str, str], store: Path, limits: Limits, stop: threading.Event) -> str:
    """Fetch a model into the store; returns NAME/VERSION. When `stop` is set it gives up.

    Raises: InvalidInput, TooLarge, DeadlineExceeded, Cancelled; InternalError where the store cannot be
    written. Nothing of it is left behind then.
    """
    name, version = wanted
    check_url(url, limits.prefixes)
    _check_new(store, name, version)
    effort = Effort(limits.bytes_max, limits.timeout_s, stop)
    try:
        with hidden_folder(store) as folder:
            archive = folder / "archive"
            _fetch(url, archive, limits.prefixes, effort)
            unpack(archive, folder / "unpacked", is_zip(url), effort)
            made = folder / name / version
            made.parent.mkdir()
            _root(folder / "unpacked").rename(made)
            _check(made)
            effort.look()
            _publish(made, store, name, version)
    except OSError as error:
        raise InternalError(f"cannot put a model into {store}: {error}") from None
    return f"{name}/{version}"


@contextmanager
def hidden_folder(store: Path) -> Iterator[Path]:
    """A folder in the store that no scan looks into, gone afterwards."""
    _sweep(store)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a sweep of somebody who fetches, too, may hold it for a moment
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(store: Path) -> None:
    """Remove what processes left that were killed in the middle."""
    for folder in store.glob(PREFIX + "*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(lock).st_mtime > ABANDONED_S:  # not one that is about to be locked
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)


def _check_new(store: Path, name: str, version: str) -> None:
    if os.path.lexists(store / name / version):
        raise InvalidInput(f"model {name!r} has a version {version} already; name another")


def _publish(made: Path, store: Path, name: str, version: str) -> None:
    model = store / name
    model.mkdir(exist_ok=True)
    try:
        _check_new(store, name, version)
        made.rename(model / version)  # fails if somebody else put one there meanwhile
    except OSError:
        _check_new(store, name, version)
        raise
    finally:
        with suppress(OSError):
            model.rmdir()  # if it is empty: nothing of a failure stays


class _Redirects(HTTPRedirectHandler):
    """Follows where it is allowed."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        target = urljoin(req.full_url, newurl)
        try:
            self._look(target)
        except InvalidInput as error:
            fp.close()  # or the connection stays as long as the error
            raise InvalidInput(f"{shown(req.full_url)} redirects: {error}") from None
        return super().redirect_request(req, fp, code, msg, headers, target)

    def _look(self, target: str) -> None:
        if urlsplit(target).scheme == "file":
            raise InvalidInput("a redirection to a file is not followed")
        self._check(target)


def _opener(check: Check) -> OpenerDirector:
    """Without a proxy, ftp:, data: and file:, which urllib's own has."""
    opener = OpenerDirector()
    handlers = [HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()]
    for handler in [*handlers, _Redirects(check)]:
        opener.add_handler(handler)
    return opener


def _fetch(url: str, archive: Path, prefixes: tuple[Prefix, ...], effort: Effort) -> None:
    if urlsplit(url).scheme == "file":
        _fetch_file(url, archive, prefixes, effort)
    else:
        download(url, archive, lambda target: check_url(target, prefixes), effort)


def download(
    url: str, target: Path, check: Check, effort: Effort, headers: Mapping[str, str] | None = None
) -> None:
    """What is at an http(s) URL as a new file. `check` raises InvalidInput for a URL that must not be
    redirected to. Raises: InvalidInput, TooLarge, DeadlineExceeded, Cancelled."""
    try:
        request = Request(url, headers={**_HEADERS, **(headers or {})})
        with _opener(check).open(request, timeout=SILENCE_S) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            if length > effort.bytes_max:
                raise TooLarge(f"{shown(url)} has {length} bytes, over {effort.bytes_max}")
            with target.open("xb") as file:
                size = effort.copy(answer, file, 0, shown(url))
    except HTTPError as error:
        error.close()
        raise InvalidInput(f"{shown(url)}: {error.code} {error.reason}") from None
    except (URLError, TimeoutError, ConnectionError, ssl.SSLError, HTTPException, ValueError) as error:
        raise InvalidInput(f"{shown(url)}: {getattr(error, 'reason', error) or error!r}") from None
    if length and size != length:
        raise InvalidInput(f"{shown(url)} ended after {size} of {length} bytes")


def _fetch_file(url: str, archive: Path, prefixes: tuple[Prefix, ...], effort: Effort) -> None:
    """A link in it must not lead out of the prefix."""
    path = Path(unquote(urlsplit(url).path))
    try:
        real = path.resolve(strict=True)
        tops = [Path(unquote(p.path)).resolve() for p in prefixes if p.scheme == "file"]
        if not any(real.is_relative_to(top) for top in tops):
            raise InvalidInput(f"{shown(url)} is a link that leads out of what register_urls allows")
        if not real.is_file():
            raise InvalidInput(f"{shown(url)} is not a file")
        source = real.open("rb")
    except OSError as error:
        raise InvalidInput(f"{shown(url)}: {error.strerror}") from None
    with source, archive.open("xb") as target:
        effort.copy(source, target, 0, shown(url))


def _root(folder: Path) -> Path:
    """Where the model is: at the archive's root, or in its only folder. Raises: InvalidInput."""
    if (folder / MODEL_FILE).is_file():
        return folder
    inside = list(folder.iterdir())
    if len(inside) == 1 and (inside[0] / MODEL_FILE).is_file():
        return inside[0]
    raise InvalidInput(f"the archive has no {MODEL_FILE}, neither at its root nor in its only folder")


def _check(made: Path) -> None:
    try:
        read_version(made)
    except SettingsError as error:
        raise InvalidInput(str(error).replace(f"{made}/", "")) from None
