"""The function that an archive's requests go to: from the manifest's `handler` to something to call.

Knows: the forms of a handler. Must not know: requests, how files are found (that is `modules`).

`handler` is `module`, `module.py` or `module:function`, of which only the last part of a path counts. The
module is one of the archive, or else a default handler's name. If it has the function (by default `handle`),
that is the entry; it is called once with None for data, to initialize. Otherwise the module defines one
class with `initialize(context)` and `handle(data, context)`. To be called with the archive's modules in
place.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from headway.errors import SettingsError
from headway_worker.torchserve.ts.utils.util import list_classes_from_module

Handle = Callable[[Any, Any], Any]
DEFAULTS = "ts.torch_handler"
# Theirs that need libraries or processes that are not there yet.
MISSING = (
    "dali_image_classifier", "densenet_handler", "vllm_handler", "trt_llm_handler", "base_pippy_handler",
    "base_deepspeed_handler",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


def entry_of(handler: str, folder: Path, context: Any) -> Handle:
    """The handler, initialized. Raises: SettingsError for a name that leads nowhere; whatever the handler's
    code raises."""
    name, function = _parted(handler)
    module = _module(name, folder)
    found = getattr(module, function or "handle", None)
    if callable(found) and not isinstance(found, type):
        if inspect.iscoroutine(asked := found(None, context)):
            asked.close()  # there is no loop yet; as in TorchServe, it does not run
        return _function(found)
    if function:
        raise SettingsError(f"handler: there is no function {function!r} in {name}")
    return _of_class(_class(module, name), context)


def _parted(handler: str) -> tuple[str, str]:
    path, _, function = handler.partition(":")
    name = path.rsplit("/", 1)[-1].removesuffix(".py")
    if not name:
        raise SettingsError(
            "handler: the archive's manifest names none; say one in model.toml: [options] handler = ..."
        )
    if not _NAME.fullmatch(name) or (function and not function.isidentifier()):
        raise SettingsError(f"handler: {handler!r:.100} is not module, module.py or module:function")
    return name, function


def _module(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:  # it is there, and imports what is not
            raise
    try:
        return importlib.import_module(f"{DEFAULTS}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{DEFAULTS}.{name}":
            raise
    if name in MISSING:
        raise SettingsError(f"handler: TorchServe's {name} is not there yet")
    raise SettingsError(f"handler: there is no {name}.py in the archive, and no default handler {name!r}")


def _class(module: ModuleType, name: str) -> type[Any]:
    found = list_classes_from_module(module)
    whole = [cls for cls in found if _has(cls, "initialize") and _has(cls, "handle")]
    if len(found) == 1 and whole:
        return found[0]
    if len(whole) == 1:  # helper classes beside it
        return whole[0]
    what = ", ".join(cls.__name__ for cls in found) or "none"
    raise SettingsError(
        f"handler: {name} must define a function handle, or one class with initialize and handle; "
        f"its classes: {what}"
    )


def _has(cls: type[Any], method: str) -> bool:
    return callable(getattr(cls, method, None))


def _of_class(cls: type[Any], context: Any) -> Handle:
    handler = cls()
    handler.initialize(context)
    # Looked up at each call: MicroBatching and others put another in its place.
    return lambda data, context: handler.handle(data, context)


def _function(found: Callable[..., Any]) -> Handle:
    return lambda data, context: found(data, context)
