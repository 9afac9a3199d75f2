"""Small helpers that handlers import: labels, classes of a module, an exception with a status."""

from __future__ import annotations

import enum
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any
from warnings import warn

log = logging.getLogger(__name__)


class PredictionException(Exception):
    """Raised by a handler: the requests of the call are answered with this message and status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class PT2Backend(enum.StrEnum):
    """Compilers of `torch.compile` that handlers may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    CUDAGRAPHS = "cudagraphs"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    OPENVINO = "openvino"
    OPENXLA = "openxla"
    TENSORRT = "tensorrt"


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether it is one of them."""
    return backend in list(PT2Backend)


def list_classes_from_module(module: ModuleType, parent_class: type[Any] | None = None) -> list[type[Any]]:
    """The classes that the module itself defines, in the order of their names."""
    found = [member for _, member in inspect.getmembers(module, inspect.isclass)]
    own = [cls for cls in found if cls.__module__ == module.__name__]
    return [cls for cls in own if parent_class is None or issubclass(cls, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Class index to label, from `index_to_name.json`; None where there is no such file.

    A label is text, or a list of which the last counts; `{"object_type_names": [labels]}` numbers them.
    Raises: ValueError for anything else.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        log.warning("there is no %s: classes are numbers", path.name)
        return None
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} must be an object of class and label")
    names = found.get("object_type_names")
    if isinstance(names, list):
        found = dict(enumerate(names))
    labels = {str(key): value[-1] if isinstance(value, list) else value for key, value in found.items()}
    for key, label in labels.items():
        if not isinstance(label, str):
            raise ValueError(f"{path.name}: the label of {key} must be text or a list of texts")
    return labels


def map_class_to_label(
    probs: list[Any], mapping: dict[str, str] | None = None, lbl_classes: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """For each row of probabilities, {label: probability} in its order; without `lbl_classes` the classes are
    numbered from 0."""
    if not isinstance(probs, list):
        raise TypeError("probabilities must be a list of lists")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError("the mapping must be a dict")
    made = []
    for place, row in enumerate(probs):
        classes = range(len(row)) if lbl_classes is None else lbl_classes[place]
        named = [str(one) if mapping is None else mapping[str(one)] for one in classes]
        made.append(dict(zip(named, row, strict=False)))
    return made


def get_yaml_config(yaml_file_path: str) -> Any:
    """The content of a YAML file."""
    import yaml

    with Path(yaml_file_path).open(encoding="utf-8") as file:
        return yaml.safe_load(file)


def deprecated(
    version: str, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Marks a function that says so when it is called."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **more: Any) -> Any:
            instead = f"; use {replacement}" if replacement else ""
            warn(f"{function.__name__} is deprecated since {version}{instead}", klass, stacklevel=2)
            return function(*args, **more)

        return call

    return decorate
