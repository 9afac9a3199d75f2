"""Which models are registered, and as what: the `torchserve.json` of every version in the broker's store.

How it stays right with several gateway processes on one store: a version that is named is read from its file,
which is looked at (one `stat`) each time; so a registration, a change and the end of it are seen at once.
Which version is the default one, only the broker knows: it is asked when its last answer is older than OLD_S,
in the background by `of`, and waited for by `find` and `models`.

Knows: the store's folders, how to ask the broker where it is and which versions are the default ones. Must
not know: HTTP, how a version gets there.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from headway import logs
from headway.errors import HeadwayError, InternalError, SettingsError
from headway.torchserve.registration import FILE, Registration, folder_of, read_registration

OLD_S = 0.5
KEPT_MAX = 10_000  # names that were asked for and are not there are not kept; this is a bound all the same
Key = tuple[str, str]
Mark = tuple[int, int, int]  # a file's inode, size and time
_log = logs.get("headway.gateway")


class Registry:
    """`client`: an `AsyncClient` or stub, opened before the first question."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._store: Path | None = None
        self._said = ""  # what the broker says of it
        self._versions: dict[str, list[str]] = {}  # that the broker knows
        self._defaults: dict[str, str] = {}
        self._asked = float("-inf")  # when the broker was, of what its last answer says
        self._kept: dict[Key, tuple[Path, Mark, Registration]] = {}
        self._asking: asyncio.Task[dict[str, Any]] | None = None

    def of(self, model: str, version: str = "") -> Registration | None:
        """What a version was registered as; "" is the default version. Does not wait: who names no version
        may be told of one that was the default a moment ago, and in the first moment of a process of none."""
        if time.monotonic() - self._asked > OLD_S:
            self._ask_meanwhile()
        version = version or self._defaults.get(model, "")
        return self._read(model, version) if version else None

    async def find(self, model: str, version: str = "") -> Registration | None:
        """As `of`, with what is so now. Raises: HeadwayError where the broker does not answer."""
        if self._store is None or time.monotonic() - self._asked > OLD_S:
            await self.look()
        found = self.of(model, version)
        if found is None and model:
            await self.look()
            found = self.of(model, version)
        return found

    async def models(self) -> dict[str, dict[str, Registration]]:
        """Everything that is registered now, by model and version, sorted."""
        await self.look()
        found = {
            model: {v: registration for v in versions if (registration := self._read(model, v))}
            for model, versions in self._versions.items()
        }
        return {model: versions for model, versions in found.items() if versions}

    def default(self, model: str) -> str:
        """The version that requests get which name none, as of the last look; "" where there is no such
        model."""
        return self._defaults.get(model, "")

    def versions(self, model: str) -> list[str]:
        """Those that the broker knew at the last look."""
        return list(self._versions.get(model, ()))

    def knows(self, model: str, version: str) -> bool:
        """Whether the broker knew it at the last look."""
        return version in self._versions.get(model, ())

    @property
    def store(self) -> Path:
        """The broker's model store. Raises: InternalError before the first look, or if it is elsewhere."""
        if self._store is None:
            raise InternalError(f"the broker's model store is not on this host: {self._said!r}")
        return self._store

    async def look(self) -> dict[str, Any]:
        """Ask the broker now; returns its state. Raises: HeadwayError."""
        asked = time.monotonic()
        state: dict[str, Any] = await self._client.state()
        if asked >= self._asked:
            self._asked = asked
            self._take(state)
        return state

    # ---- inside ----

    def _take(self, state: dict[str, Any]) -> None:
        self._said = str(state["broker"].get("model_store", ""))
        store = Path(self._said) if self._said and Path(self._said).is_dir() else None
        if store != self._store:
            self._store, self._kept = store, {}
        self._versions, self._defaults = {}, {}
        most: dict[str, float] = {}
        for entry in sorted(state["models"], key=lambda entry: (entry["name"], entry["version"])):
            model, version = entry["name"], entry["version"]
            self._versions.setdefault(model, []).append(version)
            wanted = entry.get("wanted_traffic", 0.0) or (0.0 if not entry["default"] else 1e-9)
            if wanted > most.get(model, 0.0):
                most[model], self._defaults[model] = wanted, version

    def _ask_meanwhile(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self.look())
            self._asking.add_done_callback(_note_failure)

    def _read(self, model: str, version: str) -> Registration | None:
        key = (model, version)
        try:
            if kept := self._kept.get(key):
                file, mark, found = kept
                if mark == _mark(file):
                    return found
            return self._read_anew(key)
        except (OSError, SettingsError, InternalError):
            self._kept.pop(key, None)
            return None

    def _read_anew(self, key: Key) -> Registration:
        folder = folder_of(self.store, *key)
        mark = _mark(folder / FILE)  # before it is read: what changes meanwhile is read again
        found = read_registration(folder)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (folder / FILE, mark, found)
        return found


def _mark(path: Path) -> Mark:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _note_failure(asking: asyncio.Task[dict[str, Any]]) -> None:
    error = None if asking.cancelled() else asking.exception()
    if isinstance(error, HeadwayError):
        _log.warning("the broker does not say which models there are", reason=str(error))
    elif error:
        _log.error("defect in the registry", exc_info=error)
