"""`ts.handler_utils.utils`: parts of a reply before the whole of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from headway_worker.torchserve.ts.utils.util import list_classes_from_module

log = logging.getLogger(__name__)


def send_intermediate_predict_response(
    ret: list[Any], req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Send a part of each request's reply, now, to callers that take it in parts. To others all of it goes
    together, with what the handler returns at the end."""
    if context is None:
        raise ValueError("send_intermediate_predict_response needs the context")
    if not isinstance(ret, list) or len(ret) != len(req_id_map):
        raise ValueError(f"an intermediate response is a list of {len(req_id_map)}, one for each request")
    for idx, part in zip(req_id_map, ret, strict=True):
        context.set_response_header(idx, "ts_stream_next", "true")
        context.send(idx, part)


def import_class(class_name: str, module_prefix: str | None = None) -> type[Any]:
    """A class by `module.Class`, or the only class of a module."""
    import importlib

    module_name, _, name = class_name.rpartition(".")
    prefixed = ".".join(filter(None, (module_prefix, module_name)))
    found = getattr(importlib.import_module(prefixed), name, None)
    if isinstance(found, type):
        return found
    module = importlib.import_module(".".join(filter(None, (module_prefix, class_name))))
    [only] = list_classes_from_module(module)
    return only


def is_env_set(name: str) -> bool:
    """Whether a variable of the environment says true."""
    return os.environ.get(name, "false").lower() == "true"
