"""A broker without processes behind the management of TorchServe's door: a client that obeys commands as the
real broker would, over a real store, and says so in its state."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from headway.errors import DeadlineExceeded, InvalidInput, NotReady, UnknownModel
from headway.lent import Lender
from headway.messages import OK, Reply
from headway.outgoing import Asked
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.operations import Operations
from headway_gateway.torchserve.registry import Registry

TOKEN = "token"
HOST = "here"


class FakeBroker:
    """Versions are ready as soon as they are ordered, but for those in `failing` (with the reason) and in
    `slow`. `orders` lists the commands. Several clients may share `versions` and `defaults`."""

    def __init__(self, store: Path, like: FakeBroker | None = None) -> None:
        self.store = store
        self.lender = Lender("", 0)
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.versions: dict[tuple[str, str], int] = like.versions if like else {}
        self.defaults: dict[str, str] = like.defaults if like else {}
        self.failing: dict[str, str] = {}
        self.slow: set[str] = set()
        self.keeps: set[str] = set()  # models whose traffic does not move
        self.asked: list[Asked] = []
        self.answer: Any = b"{}"
        self.queued = 0
        self.looks = 0
        self.pause_s = 0.0
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None  # what others do while a command waits

    async def state(self) -> dict[str, Any]:
        self.looks += 1
        await asyncio.sleep(0)
        return {
            "broker": {"model_store": str(self.store), "host": HOST},
            "models": [self._entry(*key) for key in sorted(self.versions)],
            "workers": [self._worker(n) for n in range(max(self.versions.values(), default=0))],
            "devices": [{"device": "cpu"}],
        }

    async def command(
        self, verb: str, arguments: dict[str, Any], token: str, timeout_s: float
    ) -> dict[str, Any]:
        assert token == TOKEN
        self.orders.append((verb, arguments))
        await asyncio.sleep(self.pause_s)
        if arguments.get("wait") and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
            raise NotReady("somebody else ordered something else")
        getattr(self, f"_{verb}")(arguments)
        return {}

    async def reply(self, asked: Asked, timeout_s: float) -> Reply:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Reply(0, OK, self.answer, {"content_type": "application/json"})

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.orders]

    # ---- verbs ----

    def _register(self, given: dict[str, Any]) -> None:
        model, version = given["path"].split("/")
        assert (self.store / model / version / "model.toml").exists()
        registered = json.loads((self.store / model / version / "torchserve.json").read_text())
        self.versions[(model, version)] = registered["workers_min"]
        self.defaults.setdefault(model, version)

    def _unregister(self, given: dict[str, Any]) -> None:
        if given["model"] in self.keeps:
            raise InvalidInput("it has traffic")
        if self.versions.pop((given["model"], given["version"]), None) is None:
            raise UnknownModel("no")
        if self.defaults.get(given["model"]) == given["version"]:
            del self.defaults[given["model"]]

    def _rescan(self, given: dict[str, Any]) -> None:
        assert given == {}

    def _default(self, given: dict[str, Any]) -> None:
        self.defaults[given["model"]] = given["version"]
        if given.get("wait") and given["model"] in self.failing:
            raise NotReady("failed to load")
        if given.get("wait"):
            self.keeps.discard(given["model"])

    def _scale(self, given: dict[str, Any]) -> None:
        assert given["min"] == given["max"], "the broker would scale by itself"
        self.versions[(given["model"], given["version"])] = given["min"]
        if given.get("wait") and given["model"] in self.failing:
            raise NotReady("failed to load")
        if given.get("wait") and given["model"] in self.slow:
            raise DeadlineExceeded("it takes longer")

    # ---- state ----

    def _entry(self, model: str, version: str) -> dict[str, Any]:
        copies, error = self.versions[(model, version)], self.failing.get(model, "")
        one = {"state": "failed" if error else "ready", "error": error, "facts": {}}
        return {
            "name": model,
            "version": version,
            "default": self.defaults.get(model) == version,
            "wanted_traffic": 1.0 if self.defaults.get(model) == version else 0.0,
            "min": copies,
            "max": copies,
            "ready": 0 if error else copies,
            "error": error,
            "copies": [{"worker": f"{HOST}-w{n + 1}", **one} for n in range(copies)],
            "stats": {"queue": self.queued},
        }

    def _worker(self, number: int) -> dict[str, Any]:
        name = f"{HOST}-w{number + 1}"
        return {"name": name, "host": HOST, "pid": 2**22 + number, "device": "cpu", "device_id": "cpu"}


class Yard:
    """A folder of archives, a store, a broker, and operations over them."""

    def __init__(self, folder: Path, like: Yard | None = None, **properties: Any) -> None:
        self.archives, self.store = folder / "archives", folder / "store"
        for each in (self.archives, self.store):
            each.mkdir(exist_ok=True)
        said = {"model_store": str(self.archives), "config_snapshots": False, "enable_model_api": True}
        self.properties = Properties(**{**said, **properties})
        self.broker = FakeBroker(self.store, like.broker if like else None)
        self.registry = Registry(self.broker)
        self.operations = Operations(self.broker, self.registry, self.properties, TOKEN)

    def archive(self, name: str = "m", version: str = "1.0", config: str = "") -> str:
        """Put one into the folder of archives; returns what it is called."""
        said = {"modelName": name, "modelVersion": version, "handler": "h.py"}
        with zipfile.ZipFile(self.archives / f"{name}-{version}.mar", "w") as packed:
            if config:
                said["configFile"] = "c.yaml"
                packed.writestr("c.yaml", config)
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": said}))
            packed.writestr("h.py", "")
        return f"{name}-{version}.mar"
