"""Where the archive is that a registration's `url` names: in TorchServe's model store, or fetched into it.

    resnet.mar                    a file or folder of the model store
    file://..., http(s)://...     fetched into the model store, if the property `allowed_urls` says so; with
                                  `s3_sse_kms`, signed with the keys that the environment has (`s3`)

Unlike TorchServe, which fetches whatever it is told to unless `allowed_urls` forbids it, nothing is fetched
unless `allowed_urls` allows it; and a local name is of the store, never of another folder.

Knows: URLs, files, the texts for what is wrong. Must not know: HTTP's routes, what is in an archive. Blocks:
run it in a thread.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from headway import logs
from headway.errors import HeadwayError, InvalidInput
from headway.settings import variables
from headway_gateway.fetch import download, hidden_folder
from headway_gateway.origins import shown
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.s3 import VARIABLES, keys_of, signed_headers
from headway_gateway.unpack import Effort

_log = logs.get("headway.gateway")
_FETCHED = re.compile(r"(file|https?)://.*", re.IGNORECASE)
_S3 = re.compile(r"s3://.*", re.IGNORECASE)
NOT_FOUND, NOT_FETCHED, INTERNAL = (
    "ModelNotFoundException",
    "DownloadArchiveException",
    "InternalServerException",
)


@dataclass(frozen=True)
class Limits:
    """What fetching one archive may take."""

    bytes_max: int = 16 << 30
    timeout_s: float = 900.0


@dataclass(frozen=True)
class Found:
    """`path` is absolute. `downloaded`: it was put into the store just now."""

    path: Path
    downloaded: bool = False

    def forget(self) -> None:
        """It is not registered after all: what was fetched goes."""
        if self.downloaded:
            self.path.unlink(missing_ok=True)


class Texts(NamedTuple):
    """What is said of archives that cannot be found; `unknown` is the name of the exception."""

    unknown: str
    no_store: str
    no_url: str
    missing: str


MODELS = Texts(NOT_FOUND, "Model store has not been configured.", "empty url", "Model not found at: ")
WORKFLOWS = Texts(
    "WorkflowNotFoundException",
    "Workflow store has not been configured.",
    "Workflow not found at: ",
    "Workflow not found in workflow store: ",
)


@dataclass(frozen=True)
class Archives:
    """Those in `store` ("": there is none), and those that `allowed_urls`, regular expressions with commas
    between, lets be fetched into it. `reuse`: what the store has under a URL's file name is that archive."""

    store: str
    allowed_urls: str = ""
    limits: Limits = Limits()
    texts: Texts = MODELS
    reuse: bool = False

    def find(self, url: str, stop: threading.Event, s3_sse_kms: bool = False) -> Found:
        """The archive. When `stop` is set, fetching ends. `s3_sse_kms`: ask for it with keys of Amazon's.
        Raises: Refusal."""
        self._check(url)
        if self._is_allowed(url) and _FETCHED.fullmatch(url):
            return self._fetched(url, stop, s3_sse_kms)
        if _S3.fullmatch(url):
            text = f"{self.texts.missing}{url} (s3:// is not there: name the object's https:// URL)"
            raise self._not_found(text)
        if _FETCHED.fullmatch(url):
            raise self._not_found(f"Given URL {url} does not match any allowed URL(s)")
        return self._local(url)

    def _check(self, url: str) -> None:
        if not self.store:
            raise self._not_found(self.texts.no_store)
        if not url:
            raise self._not_found(self.texts.no_url)
        if ".." in url or ".." in unquote(unquote(url)):
            raise self._not_found(f"Relative path is not allowed in url: {url}")

    def _is_allowed(self, url: str) -> bool:
        patterns = [text.strip() for text in self.allowed_urls.split(",") if text.strip()]
        return any(_matches(pattern, url) for pattern in patterns)

    def _local(self, url: str) -> Found:
        """Something in the store. Of a path that leads elsewhere only its end counts, as in TorchServe."""
        store = Path(self.store).resolve()
        for path in (store / url, store / url.rpartition("/")[2]):
            if _is_in(store, path):
                return Found(_root(path))
        raise self._not_found(f"{self.texts.missing}{url}")

    def _fetched(self, url: str, stop: threading.Event, signs: bool) -> Found:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        if not name or name.startswith(".") or not name.isprintable():
            raise self._not_found(f"{self.texts.missing}{url}")
        target = Path(self.store).resolve() / name
        if self.reuse and target.is_file():
            return Found(target)
        if os.path.lexists(target):
            raise _exists(name)
        with _as_refusals(url, name), hidden_folder(target.parent) as folder:
            effort = Effort(self.limits.bytes_max, self.limits.timeout_s, stop)
            self._fetch(url, folder / name, effort, signs)
            (folder / name).chmod(0o644)
            os.link(folder / name, target)  # fails where somebody was faster; a rename would replace it
        return Found(target, downloaded=True)

    def _fetch(self, url: str, target: Path, effort: Effort, signs: bool) -> None:
        if signs and not url.lower().startswith("file:"):
            download(url, target, _no_redirect, effort, _signed(url))
            return
        if not url.lower().startswith("file:"):
            download(url, target, self._check_redirect, effort)
            return
        source = Path(unquote(urlsplit(url).path))
        if source.is_dir():
            raise InvalidInput("it is a folder: put it into the model store, and register it by name")
        if source.exists() and not source.is_file():  # to open a pipe may wait for ever
            raise InvalidInput("it is no file")
        with source.open("rb") as file, target.open("xb") as copy:
            effort.copy(file, copy, 0, url)

    def _not_found(self, message: str) -> Refusal:
        return Refusal(404, self.texts.unknown, message)

    def _check_redirect(self, url: str) -> None:
        if not self._is_allowed(url):
            raise InvalidInput(f"{url} does not match any allowed URL(s)")


def _signed(url: str) -> dict[str, str]:
    """Raises: InvalidInput where the keys are not there."""
    keys = keys_of(variables(VARIABLES))
    if keys is None:
        raise InvalidInput(f"s3_sse_kms: the environment has not all of {', '.join(VARIABLES[:3])}")
    return signed_headers(url, keys, datetime.now(UTC))


def _no_redirect(url: str) -> None:
    """A signature is for one host."""
    raise InvalidInput("a signed request is not redirected: name the URL in the bucket's own region")


def _matches(pattern: str, url: str) -> bool:
    try:
        return re.fullmatch(pattern, url, re.IGNORECASE) is not None
    except re.error as error:
        raise Refusal(500, INTERNAL, f"allowed_urls: {pattern!r} is no regular expression: {error}") from None


def _is_in(store: Path, path: Path) -> bool:
    if "\0" in str(path) or path == store or path.name.startswith(".") or not path.is_relative_to(store):
        return False
    try:
        return path.is_file() or path.is_dir()
    except OSError:  # no file can have so long a name
        return False


def _root(path: Path) -> Path:
    """A folder that has nothing but a folder in it stands for that."""
    if not path.is_dir():
        return path
    inside = list(path.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "MAR-INF" else path


@contextmanager
def _as_refusals(url: str, name: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise _exists(name) from None
    except HeadwayError as error:
        raise _not_fetched(url, str(error)) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise Refusal(500, INTERNAL, f"Failed to save model: {name}: {error.strerror}") from None
        raise _not_fetched(url, str(error.strerror or error)) from None


def _not_fetched(url: str, reason: str) -> Refusal:
    _log.warning("archive is not fetched", url=shown(url), reason=reason)
    return Refusal(400, NOT_FETCHED, f"Failed to download archive from: {url}")


def _exists(name: str) -> Refusal:
    return Refusal(500, INTERNAL, f"Model file already exists {name}")
