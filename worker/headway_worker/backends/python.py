"""Backend `python`: a class in the model's own Python file, by default `Model` in `model.py`.

The contract, of which only `infer` must be there:

    class Model:                                # made without arguments
        def load(self, folder, device): ...     # pathlib.Path, torch.device; read the weights here
        def infer(self, x, y): ...              # the inputs and masks by name, each [rows, *shape];
                                                # returns a tensor, a tuple, or {name: tensor}
        def preprocess(self, request): ...      # see headway_worker.request; also in `processing`
        def postprocess(self, outputs, request): ...
        def warmup(self): ...                   # before Headway's own warm-up
        def close(self): ...

A `torch.nn.Module` is served as it is: its `forward` is used where it has no `infer`, and after `load` it is
moved to the device and put into evaluation mode. The file is imported as part of a package, so
`from .helper import f` works. BYTES inputs are numpy object arrays of `bytes`.

Options: `class`, the class's name; `compile`, which is true, a mode ("reduce-overhead", ...) or a table of
`torch.compile`'s arguments `backend`, `mode`, `dynamic` and `fullgraph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from headway.errors import SettingsError
from headway.models import ModelSpec
from headway_worker.backends import named, refuse_unknown
from headway_worker.casting import module_to, refuse_casting
from headway_worker.collate import Values
from headway_worker.sources import import_file

_COMPILE = ("backend", "mode", "dynamic", "fullgraph")


class Python:
    """An instance of a user's class."""

    model: Any = None
    preprocess: Any = None
    postprocess: Any = None
    warmup: Any = None

    def load(self, spec: ModelSpec, device: torch.device) -> None:
        refuse_unknown(spec, ("class", "compile"))
        self._spec = spec
        arguments = _compile_arguments(spec.options.get("compile", False))
        self._replays = _has_own_graphs(arguments)
        if self._replays and spec.cuda_graphs:
            raise SettingsError("cuda_graphs: options.compile has CUDA graphs of its own in this mode")
        self.model = _class(spec)()
        if callable(getattr(self.model, "load", None)):
            self.model.load(Path(spec.folder), device)
        if isinstance(self.model, torch.nn.Module):
            self.model = module_to(self.model, spec, device).eval()
        else:
            refuse_casting(spec, "the class is no torch.nn.Module; cast its weights in load")
        for name in ("preprocess", "postprocess", "warmup"):  # the model's own, where it has them
            setattr(self, name, getattr(self.model, name, None))
        infer = _function(self.model, spec)
        self._infer: Any = infer if arguments is None else torch.compile(infer, **arguments)
        self._compiled = arguments is not None

    def infer(self, inputs: Values) -> Values:
        outputs = named(self._infer(**inputs), self._spec)
        # The next run writes over what these graphs return, while this is still copied to the host.
        return {n: _own(v) for n, v in outputs.items()} if self._replays else outputs

    def describe(self) -> dict[str, Any]:
        return {"kind": f"Python class {type(self.model).__name__}", "compiled": self._compiled}

    def close(self) -> None:
        model = self.model
        vars(self).clear()
        if callable(getattr(model, "close", None)):
            model.close()


def _class(spec: ModelSpec) -> Callable[[], Any]:
    file, name = spec.file or "model.py", spec.options.get("class", "Model")
    found = getattr(import_file(Path(spec.folder), file), str(name), None)
    if not isinstance(found, type):
        raise SettingsError(f"options.class: there is no class {name!r} in {file}")
    return found


def _function(model: Any, spec: ModelSpec) -> Callable[..., Any]:
    """What to call with the inputs; a module itself where it has no `infer`, so that hooks run."""
    if callable(getattr(model, "infer", None)):
        return model.infer
    if isinstance(model, torch.nn.Module):
        return model
    raise SettingsError(
        f"options.class: {type(model).__name__} has no method infer and is no torch.nn.Module"
    )


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _has_own_graphs(arguments: dict[str, Any] | None) -> bool:
    return (arguments or {}).get("mode") in ("reduce-overhead", "max-autotune")


def _compile_arguments(option: Any) -> dict[str, Any] | None:
    """The arguments for `torch.compile`, or None for eager. Raises: SettingsError."""
    if option is False or option is True:
        return {} if option else None
    if isinstance(option, str):
        return {"mode": option}
    if not isinstance(option, Mapping):
        raise SettingsError("options.compile must be true, false, a mode or a table")
    for key in option:
        if key not in _COMPILE:
            raise SettingsError(f"options.compile.{key} is not known; known are {', '.join(_COMPILE)}")
    return dict(option)
