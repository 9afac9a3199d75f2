"""A workbench for runner tests: model folders on disk, a real runner obeying orders, a clock that stands
until it is moved. Nothing of Headway is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headway.body import Body, pack_body
from headway.messages import Batch, BatchReply, BatchRequest, Copy, Load, Result, Unload
from headway.tensors import Tensors, pack, unpack
from headway_worker.orders import Report, Run
from headway_worker.runner import Runner

DOUBLE = """
class Model:
    def infer(self, x):
        return x * 2
"""


def tensor(
    kind: str, name: str, dtype: str = "float32", shape: tuple[int, ...] = (2,), more: str = ""
) -> str:
    """A `[[inputs]]` or `[[outputs]]` table."""
    return f'[[{kind}]]\nname = "{name}"\ndtype = "{dtype}"\nshape = {list(shape)}\n{more}\n'


X = tensor("inputs", "x")
Y = tensor("outputs", "y")


def floats(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def request(rows: int = 0, timeout_ms: int = 1000, **tensors: np.ndarray) -> BatchRequest:
    return BatchRequest(timeout_ms, rows, {}, pack(tensors))


def body(data: Any, content_type: str = "application/json") -> BatchRequest:
    """A body request; what is not bytes is sent as JSON."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    packed, options = pack_body(Body(raw, content_type))
    return BatchRequest(1000, 0, options, packed)


class Bench:
    """A store in a temporary folder and a runner, on the CPU unless told otherwise."""

    def __init__(self, store: Path, device: str = "cpu") -> None:
        self.store = store
        self.now = 100.0
        self.reports: list[Report] = []
        self.runner = Runner(torch.device(device), self.reports.append, lambda: self.now)

    def write(self, toml: str = X + Y, backend: str = "python", **files: str) -> Path:
        """The folder of version 1 of "m", with Python files by their names (without .py)."""
        return self.write_version("1", toml, backend, **files)

    def write_version(self, version: str, toml: str, backend: str = "python", **files: str) -> Path:
        folder = self.store / "m" / version
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        (folder / "model.toml").write_text(f'backend = "{backend}"\n{toml}')
        return folder

    def load(self, version: str = "1", folder: Path | None = None) -> Copy:
        """Load a version of "m"; the last report about it."""
        self.runner.obey(Load("m", version, str(folder or self.store / "m" / version)))
        copy = self.reports[-1]
        assert isinstance(copy, Copy)
        return copy

    def serve(self, toml: str = X + Y, **files: str) -> Copy:
        """Write and load version 1 of "m", which must become ready."""
        self.write(toml, **(files or {"model": DOUBLE}))
        copy = self.load()
        assert copy.state == "ready", copy.detail
        return copy

    def unload(self, version: str = "1") -> Copy:
        self.runner.obey(Unload("m", version))
        copy = self.reports[-1]
        assert isinstance(copy, Copy)
        return copy

    def result(self, *requests: BatchRequest, version: str = "1", received: float | None = None) -> Result:
        batch = Batch(7, "m", version, 60_000, list(requests))
        self.runner.obey(Run(batch, self.now if received is None else received))
        result = self.reports[-1]
        assert isinstance(result, Result)
        assert len(result.replies) == len(requests)
        return result

    def run(self, *requests: BatchRequest, version: str = "1") -> list[BatchReply]:
        return self.result(*requests, version=version).replies

    def ask(self, request: BatchRequest, version: str = "1") -> BatchReply:
        return self.run(request, version=version)[0]

    def outputs(self, *requests: BatchRequest, version: str = "1") -> list[Tensors]:
        return [tensors_of(reply) for reply in self.run(*requests, version=version)]


def tensors_of(reply: BatchReply) -> Tensors:
    assert reply.code == 0, reply.content
    assert isinstance(reply.content, bytes)
    return unpack(reply.content)


def json_of(reply: BatchReply) -> Any:
    assert reply.code == 0, reply.content
    assert reply.meta == {"content_type": "application/json"}
    return json.loads(reply.content)


def listed(tensors: Tensors) -> dict[str, Any]:
    return {name: array.tolist() for name, array in tensors.items()}
