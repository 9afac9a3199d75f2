"""What must survive a restart of the broker: the orders, and the management token.

Knows: files. Must not know: what the orders mean.

The orders are one JSON file for each model store, in the state directory, replaced as a whole: a new file
is written and synced, the present one becomes `.last`, the new one takes its place. So at any time one of
them is whole. A file that is not (its checksum says so) is put aside as `.corrupt`, and the last good one
counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway_broker.desired import Desired, read_desired

TOKEN = "token"


class StateFile:
    """The orders for one model store."""

    def __init__(self, folder: Path, model_store: Path) -> None:
        store = str(model_store.absolute())
        self.path = folder / f"broker-{hashlib.sha256(store.encode()).hexdigest()[:12]}.json"
        self._last = self.path.with_suffix(".last")
        self._store = store

    def read(self) -> tuple[Desired, str]:
        """The last good orders, and what was wrong with newer ones ("" if nothing was)."""
        problems: list[str] = []
        for path in (self.path, self._last):
            try:
                orders = read_desired(_checked(path.read_bytes()))
            except FileNotFoundError:
                continue
            except (OSError, SettingsError) as error:
                problems.append(f"{path}: {error}")
                with suppress(OSError):
                    path.replace(path.with_suffix(path.suffix + ".corrupt"))
                continue
            used = f"the orders of {path} are used" if problems else ""
            return orders, "; ".join([*problems, used]) if problems else ""
        if problems:
            problems.append("no good orders are left: the model store's defaults are used")
        return Desired(), "; ".join(problems)

    def write(self, document: dict[str, Any]) -> None:
        """Replace the orders; they are on the disk when this returns. Raises: OSError."""
        orders = json.dumps(document, indent=1, sort_keys=True)
        whole = {"model_store": self._store, "sha256": _digest(orders), "orders": orders}
        new = self.path.with_suffix(".new")
        with open(new, "w", opener=_private) as file:
            json.dump(whole, file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            self.path.replace(self._last)
        new.replace(self.path)
        _sync(self.path.parent)


def make_state_dir(folder: Path) -> None:
    """Raises: SettingsError when it cannot be made or written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"state_dir: cannot make {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"state_dir: cannot write to {folder}")


def token_in(folder: Path) -> str:
    """The management token; made at the first start. Raises: SettingsError for one that cannot be."""
    path = folder / TOKEN
    try:
        if not path.exists():
            _make_token(path)
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read or made: {error}") from None
    if not 16 <= len(token) <= 128:
        raise SettingsError(f"{path}: a token has 16 to 128 characters; remove the file for a new one")
    return token


def _make_token(path: Path) -> None:
    """It appears as a whole: half a token would keep the broker from starting for good."""
    new = path.with_suffix(".new")
    with open(new, "w", opener=_private) as file:
        file.write(secrets.token_urlsafe(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # another broker of this folder was faster
        os.link(new, path)
    new.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


def _checked(data: bytes) -> Any:
    try:
        whole = json.loads(data)
        orders = whole["orders"]
        if whole["sha256"] != _digest(orders):
            raise SettingsError("its checksum is wrong")
        return json.loads(orders)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingsError(f"not a state file: {error!r}") from None


def _digest(orders: str) -> str:
    return hashlib.sha256(orders.encode()).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
