"""`ts.torch_handler.base_handler`: loads a model of any form, and the steps that handlers change.

Knows: the forms of models, the keys of `model-config.yaml` that concern compiling. Must not know: what the
data are.

    modelFile               a module with one torch.nn.Module, its weights a state dict, or none
    .pt (.pth, .ts)         TorchScript
    .pt2                    an AOTInductor package
    .so                     AOTInductor's older form
    .onnx                   onnxruntime, where it is installed

Weights are read with `weights_only=True`, unless the operator says `unpickle`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headway_worker.torchserve.ts.utils.util import (
    check_valid_pt2_backend,
    list_classes_from_module,
    load_label_mapping,
)

log = logging.getLogger(__name__)
_COMPILE = ("backend", "mode", "fullgraph", "dynamic", "options")


class BaseHandler:
    """`initialize` once, then `handle` for every batch: `preprocess`, `inference`, `postprocess`."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.map_location = "cpu"
        self.initialized = False
        self.context: Any = None
        self.manifest: Any = None
        self.model_pt_path: str | None = None
        self.model_yaml_config: dict[str, Any] = {}
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model that the manifest names, and the labels of its classes if there are any."""
        self.context = context
        about = context.system_properties
        self.manifest = context.manifest
        self.model_yaml_config = getattr(context, "model_yaml_config", None) or {}
        self._place(about.get("gpu_id"))
        self._load(about["model_dir"], self.manifest.get("model", {}))
        mapping = Path(about["model_dir"]) / "index_to_name.json"
        self.mapping = load_label_mapping(str(mapping)) if mapping.is_file() else None
        self.initialized = True

    def _place(self, gpu_id: Any) -> None:
        wanted = self.model_yaml_config.get("deviceType")
        if torch.cuda.is_available() and gpu_id is not None and wanted != "cpu":
            self.map_location = "cuda"
            self.device = torch.device("cuda", int(gpu_id))
        else:
            self.map_location = "cpu"
            self.device = torch.device("cpu")

    def _load(self, model_dir: str, names: Mapping[str, Any]) -> None:
        file, serialized = names.get("modelFile"), names.get("serializedFile")
        path = str(Path(model_dir) / serialized) if serialized else None
        self.model_pt_path = path
        if file:
            self.model = self._load_pickled_model(model_dir, file, path).to(self.device).eval()
        elif path is None:
            raise ValueError("the manifest names neither a modelFile nor a serializedFile")
        elif path.endswith(".onnx"):
            self.model = self._load_onnx(path)
            return
        elif path.endswith((".so", ".pt2")):
            self.model = _load_aot(path, str(self.device))
            return
        else:
            self.model = self._load_torchscript_model(path)
        self._compile()

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torch.jit.load(_there(model_pt_path), map_location=self.device).eval()

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """The one `torch.nn.Module` in the file, with its weights. Its name is from the times when it was
        pickled."""
        _there(str(Path(model_dir) / model_file))
        module = importlib.import_module(Path(model_file).name.removesuffix(".py"))
        found = list_classes_from_module(module, torch.nn.Module)
        if len(found) != 1:
            names = ", ".join(cls.__name__ for cls in found) or "none"
            raise ValueError(f"modelFile: {model_file} must define one torch.nn.Module, it has {names}")
        model = found[0]()
        if model_pt_path:
            model.load_state_dict(self._weights(model_pt_path))
        return model

    def _weights(self, path: str) -> Any:
        weights_only = not getattr(self.context, "may_unpickle", False)
        try:
            return torch.load(_there(path), map_location=self.device, weights_only=weights_only)
        except Exception as error:
            if not weights_only or "weights_only" not in str(error).lower().replace(" ", "_"):
                raise
            more = "they are pickled objects; if you trust them: [options] unpickle = true in model.toml"
            raise ValueError(f"{Path(path).name}: the weights cannot be read: {more}") from error

    def _load_onnx(self, path: str) -> Any:
        try:
            onnxruntime = importlib.import_module("onnxruntime")
        except ImportError:
            raise ImportError(f"{Path(path).name} needs onnxruntime, which is not installed") from None
        gpu = ["CUDAExecutionProvider"] if self.map_location == "cuda" else []
        return onnxruntime.InferenceSession(_there(path), providers=[*gpu, "CPUExecutionProvider"])

    def _compile(self) -> None:
        """As `pt2` in `model-config.yaml` wants it."""
        arguments = compile_arguments(self.model_yaml_config.get("pt2"))
        if arguments is not None:
            self.model = torch.compile(self.model, **arguments)

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """The requests' `data` or `body` as one tensor."""
        values = [row_of(row) for row in data]
        if all(isinstance(value, torch.Tensor) for value in values):
            return torch.stack(values).to(self.device)
        return torch.as_tensor(values, device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs."""
        if not callable(self.model) and hasattr(self.model, "get_inputs"):
            return self._run_onnx(data)
        with torch.inference_mode():
            moved = data.to(self.device) if isinstance(data, torch.Tensor) else data
            return self.model(moved, *args, **kwargs)

    def _run_onnx(self, data: Any) -> Any:
        array = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data
        name = self.model.get_inputs()[0].name
        return torch.as_tensor(self.model.run(None, {name: array})[0])

    def postprocess(self, data: Any) -> list[Any]:
        """One result for each request."""
        listed: list[Any] = data.tolist()
        return listed

    def handle(self, data: list[Any], context: Any) -> list[Any]:
        """The three steps, or an explanation or description where the request's headers want one."""
        started = time.perf_counter()
        self.context = context
        if self._is_describe():
            result = [self.describe_handle()]
        else:
            prepared = self.preprocess(data)
            if self._is_explain():
                result = self.explain_handle(prepared, data)
            else:
                result = self.postprocess(self.inference(prepared))
        self._record(time.perf_counter() - started)
        return result

    def explain_handle(self, data_preprocess: Any, raw_data: list[dict[str, Any]]) -> list[Any]:
        """What `get_insights` says of the first request, whose part `target` names the class."""
        row = raw_data[0]
        inputs = row.get("data") or row.get("body")
        insights: list[Any] = self.get_insights(data_preprocess, inputs, row.get("target") or 0)
        return insights

    def get_insights(self, tensor_data: Any, raw_data: Any, target: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no get_insights: it cannot explain")

    def describe_handle(self) -> Any:
        """What the model says of itself; for handlers to change."""
        return {}

    def _is_explain(self) -> bool:
        return self._header("explain") == "True"

    def _is_describe(self) -> bool:
        return self._header("describe") == "True"

    def _header(self, name: str) -> Any:
        return self.context.get_request_header(0, name) if self.context.request_processor else None

    def _record(self, took_s: float) -> None:
        metrics = getattr(self.context, "metrics", None)
        if metrics is not None:
            metrics.add_time("HandlerTime", round(took_s * 1000, 2), None, "ms")


def row_of(row: Any) -> Any:
    """A request's `data`, or else its `body`, or what an envelope made of it."""
    if not isinstance(row, Mapping):
        return row
    return row["body"] if row.get("data") is None and "body" in row else row.get("data")


def compile_arguments(pt2: Any) -> dict[str, Any] | None:
    """The arguments for `torch.compile`; None where the model is not to be compiled.

    `{compile: {enable: true, backend: ...}}`, or of older archives a backend's name or the arguments
    themselves. A backend that nobody knows is said, and the model runs as it is.
    """
    if isinstance(pt2, str):
        pt2 = {"backend": pt2}
    if not isinstance(pt2, Mapping) or not pt2 or ("export" in pt2 and "compile" not in pt2):
        return None
    table = pt2.get("compile", pt2)
    if not isinstance(table, Mapping) or table.get("enable", table is pt2) is not True:
        return None
    backend = str(table.get("backend", "inductor"))
    if not check_valid_pt2_backend(backend):
        log.warning("pt2: torch.compile has no backend %r: the model is not compiled", backend)
        return None
    return {key: table[key] for key in _COMPILE if key in table} | {"backend": backend}


def _there(path: str) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {Path(path).name} in the archive")
    return path


def _load_aot(path: str, device: str) -> Any:
    """What `torch.export` and AOTInductor compiled."""
    if path.endswith(".pt2"):
        from torch._inductor import aoti_load_package

        return aoti_load_package(_there(path))
    from torch._export import aot_load

    return functools.partial(aot_load(_there(path), device))
