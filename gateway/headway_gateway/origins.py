"""Where a model may come from, and what it is called: URLs, compared without a way around.

Pure. Knows: URLs, names. Must not know: sockets, files.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from headway.errors import InvalidInput, SettingsError
from headway.models import NAME, NO_VERSION, is_version

PORTS = {"http": 80, "https": 443, "file": None}
TAR, ZIP = (".tar.gz", ".tgz"), (".zip",)
_STEM_VERSION = re.compile(r"(.+?)[-_]v?([0-9]+(?:\.[0-9]+){0,3})")


class Prefix(NamedTuple):
    """A part of the web that models may come from: everything below `path`."""

    scheme: str
    host: str
    port: int | None
    path: str


def prefix_of(text: str) -> Prefix:
    try:
        return _parsed(text)
    except InvalidInput as error:
        raise SettingsError(f"register_urls: {error}") from None


def check_url(url: str, prefixes: tuple[Prefix, ...]) -> None:
    """Raises: InvalidInput unless the URL is under one of the prefixes."""
    if not prefixes:
        raise InvalidInput("models are not fetched from URLs here; the setting is register_urls")
    found = _parsed(url)
    if not any(found[:3] == prefix[:3] and _is_below(found.path, prefix.path) for prefix in prefixes):
        raise InvalidInput(f"{shown(url)} is under none of the prefixes that register_urls allows")


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.removesuffix("/") + "/")


def _parsed(url: str) -> Prefix:
    """A URL as it is compared. Raises: InvalidInput for what could mean another place to somebody else."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise InvalidInput(f"not a URL: {error}") from None
    if parts.scheme not in PORTS:
        raise InvalidInput(f"a URL begins with http://, https:// or file://, not with {parts.scheme[:40]!r}")
    if "@" in parts.netloc:
        raise InvalidInput("a URL with a user name or password is not taken")
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise InvalidInput("a file:// URL has no host, and any other has one")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise InvalidInput("a URL has printable ASCII without spaces and backslashes; escape the others")
    return Prefix(parts.scheme, host, port or PORTS[parts.scheme], _plain_path(parts))


def _plain_path(parts: SplitResult) -> str:
    path = parts.path or "/"
    plain = path
    while plain != (plain := unquote(plain)):
        pass
    if any(part in (".", "..") for part in plain.split("/")) or "\0" in plain or "\\" in plain:
        raise InvalidInput("a URL's path has no '.' or '..' in it, escaped or not")
    return path


def shown(url: str) -> str:
    """A URL for people and logs: without its query, which may be a signature."""
    return url.partition("?")[0].partition("#")[0][:200]


def is_zip(url: str) -> bool:
    """Whether the file at this URL is called a zip archive; else it is a tar."""
    return urlsplit(url).path.lower().endswith(ZIP)


def wanted(url: str, name: str = "", version: str = "") -> tuple[str, str]:
    """The model's name and version: as said, else from the file's name (NAME-VERSION.tar.gz, NAME.zip).

    Raises: InvalidInput for names that no model can have, and for a file that is no archive.
    """
    stem = _stem(url)
    found = _STEM_VERSION.fullmatch(stem)
    name = name or (found[1] if found else stem)
    version = version or (found[2] if found else "1")
    if not NAME.fullmatch(name):
        raise InvalidInput(f"name: {name!r} is no name for a model: letters, digits, '_', '-' and '.'")
    if not is_version(version):
        raise InvalidInput(f"version: {version!r} is {NO_VERSION}")
    return name, version


def _stem(url: str) -> str:
    file = unquote(urlsplit(url).path).rpartition("/")[2]
    for ending in TAR + ZIP:
        if file.lower().endswith(ending) and len(file) > len(ending):
            return file[: -len(ending)]
    raise InvalidInput(f"a model is fetched as {', '.join(TAR + ZIP)}, which {file[:100]!r} is not")
