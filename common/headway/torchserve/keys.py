"""`key_file.json`: the keys that clients of TorchServe show, made, read, checked and renewed.

    {"management": {"key": "…", "expiration time": "2026-11-23T01:31:04.933165Z"},
     "inference": {…}, "API": {"key": "…"}}

Knows: the file, when a key has expired. Must not know: HTTP, which request needs which key.

Several processes share the file. Each looks whether it has changed before it believes what it has read; who
writes holds a lock on the folder, and replaces the file whole. Where it cannot be read (somebody removed
it), what was read last still counts, as in TorchServe, which only reads its memory.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import string
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headway.errors import SettingsError

FILE = "key_file.json"
MANAGEMENT, INFERENCE, API = "management", "inference", "API"
EXPIRING = (MANAGEMENT, INFERENCE)
KEY_LETTERS = 8
_ALPHABET = string.ascii_letters + string.digits
_EXPIRATION = "expiration time"
_FILE_BYTES_MAX = 65536


@dataclass(frozen=True)
class Key:
    """`expires`: seconds since 1970, None for never."""

    key: str
    expires: float | None = None


class Keys:
    """Those in `path`, of which two expire `expiration_min` minutes after they were made. `clock` says the
    time in seconds since 1970."""

    def __init__(self, path: Path, expiration_min: float, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._expiration_s = expiration_min * 60
        self._clock = clock
        self._seen: object = None
        self._keys: dict[str, Key] = {}

    def make(self, survive: bool = False) -> None:
        """New keys in the file, readable by its owner alone. `survive`: keys of an earlier start that have
        not expired are kept. Raises: SettingsError where no file can be written."""
        with self._writing():
            kept = self._living() if survive else {}
            self._write({kind: kept.get(kind) or self._new(kind) for kind in (*EXPIRING, API)})

    def check(self, kind: str, given: str) -> bool:
        """Whether `given` is the key of this kind, now. A wrong one takes as long as the right one."""
        self._look()
        key = self._keys.get(kind)
        if key is None:
            return False
        same = hmac.compare_digest(given.encode("utf-8", "replace"), key.key.encode())
        return same and not self._is_expired(key)

    def renew(self, kind: str) -> None:
        """Another key of this kind, and the old one is none. Raises: ValueError for a kind that does not
        expire; SettingsError where the file cannot be written."""
        if kind not in EXPIRING:
            raise ValueError(f"{kind!r} is not one of {', '.join(EXPIRING)}")
        with self._writing():
            self._look()
            self._write({**self._keys, kind: self._new(kind)})

    def remove(self) -> None:
        """The file is there no longer."""
        self.path.unlink(missing_ok=True)

    def _new(self, kind: str) -> Key:
        text = "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LETTERS))
        return Key(text, self._clock() + self._expiration_s if kind in EXPIRING else None)

    def _is_expired(self, key: Key) -> bool:
        return key.expires is not None and key.expires <= self._clock()

    def _living(self) -> dict[str, Key]:
        """Those of an earlier start that still count; none from a file that somebody else could have made."""
        try:
            if self.path.lstat().st_uid != os.geteuid():
                return {}
        except OSError:
            return {}
        self._look()
        return {kind: key for kind, key in self._keys.items() if not self._is_expired(key)}

    def _look(self) -> None:
        """Read the file if it has changed. One that cannot be read changes nothing."""
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return
            with self.path.open("rb") as file:
                self._keys = parse_keys(file.read(_FILE_BYTES_MAX))
            self._seen = seen
        except (OSError, SettingsError):
            return

    def _write(self, keys: Mapping[str, Key]) -> None:
        """Whole, or not at all."""
        hidden = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        hidden.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(hidden, flags, 0o600), "w") as file:
            file.write(write_keys(keys))
        hidden.rename(self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Nobody else writes meanwhile. The lock is on the folder: no file of a lock is left in it."""
        try:
            lock = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
        except OSError as error:
            raise SettingsError(f"{self.path}: the keys cannot be written: {error.strerror}") from None


def parse_keys(text: bytes) -> dict[str, Key]:
    """Raises: SettingsError for a file that is none of ours or TorchServe's."""
    try:
        found = json.loads(text)
        return {kind: _key(found[kind]) for kind in (*EXPIRING, API)}
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise SettingsError(f"{FILE}: it does not hold keys: {error!r}") from None


def write_keys(keys: Mapping[str, Key]) -> str:
    """As TorchServe writes it."""
    tables: dict[str, dict[str, str]] = {}
    for kind, key in keys.items():
        tables[kind] = {"key": key.key}
        if key.expires is not None:
            moment = datetime.fromtimestamp(key.expires, UTC).isoformat(timespec="microseconds")
            tables[kind][_EXPIRATION] = moment.replace("+00:00", "Z")
    return json.dumps(tables, indent=2)


def _key(table: Mapping[str, Any]) -> Key:
    text = table["key"]
    if not isinstance(text, str) or not text:
        raise ValueError("a key that is no text")
    said = table.get(_EXPIRATION)
    return Key(text, None if said is None else datetime.fromisoformat(said).timestamp())
