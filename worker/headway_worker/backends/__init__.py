"""What a backend is, and what all of them share.

Knows: the protocol, how a model's result becomes named outputs.
Must not know: any one backend, batches, requests.

A backend turns the files of a model version into something that infers. Headway finds it by name in the
entry-point group `headway.backends`; a third party adds one by declaring an entry point in that group:

    [options.entry_points]
    headway.backends =
        onnx = my_package.onnx:Onnx

It is made without arguments and lives on the runner's thread only; `infer` and what runs beside it are
called under `torch.inference_mode()`. Besides the protocol's four methods it may have
`preprocess(request) -> inputs`, `postprocess(outputs, request) -> answer` and `warmup() -> None`;
attributes that are missing or None do not count.

A backend for which requests are more than rows of tensors has, in place of `infer`,
`answer(requests) -> [share, ...]`: the `ModelRequest`s of a batch as they came, whatever their shapes, and
for each a `replies.Answer` (of a body) or named outputs (of tensors). It then has no batch padded and nothing
copied to the device for it. It may also have `retries_alone` (false: a batch that raised is not run again
request by request), `wants_gradients` (true: `answer` is called outside of inference mode) and
`error_meta(error) -> dict`, what goes beside the text of an error. A request with a `send` may be sent
`Answer`s with it before; what `answer` returns is then the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from headway.errors import ModelError, SettingsError
from headway.models import ModelSpec
from headway.tensors import BYTES
from headway_worker.collate import Values

T = TypeVar("T")


class Backend(Protocol):
    """One model version, loaded on one device."""

    def load(self, spec: ModelSpec, device: torch.device) -> None:
        """Read the files in `spec.folder` and be ready to infer on `device`, with weights in the model's
        `precision` and `channels_last` (`casting.module_to`), or refuse these (`casting.refuse_casting`).

        Raises: anything; the copy has then failed, and the status has the traceback.
        """

    def infer(self, inputs: Values) -> Values:
        """Run one batch. Inputs come in the declared order and on the device, masks last, each
        `[rows, *shape]`, floats in the model's precision; BYTES are numpy object arrays of `bytes`. Outputs
        are named, each with a leading `rows`, on any device; numpy arrays are welcome, and BYTES must be
        ones."""

    def describe(self) -> dict[str, Any]:
        """Facts for people, all of them strings or numbers."""

    def close(self) -> None:
        """Let go of everything; also called after a `load` that raised."""


def refuse_unknown(spec: ModelSpec, known: Sequence[str]) -> None:
    """Raises: SettingsError naming the first key in `[options]` that the backend does not know."""
    for key in spec.options:
        if key not in known:
            what = ", ".join(known) or "none"
            raise SettingsError(f"options.{key} is not known to backend {spec.backend!r}; known: {what}")


def refuse_bytes(spec: ModelSpec) -> None:
    """Raises: SettingsError naming the first BYTES input, for backends that have only tensors."""
    for i, tensor in enumerate(spec.inputs):
        if tensor.dtype == BYTES.name:
            raise SettingsError(f"inputs[{i}].dtype: backend {spec.backend!r} takes no bytes ({tensor.name})")


def model_file(spec: ModelSpec, default: str) -> Path:
    """The path of the model's file. Raises: SettingsError when it is not there."""
    path = Path(spec.folder) / (spec.file or default)
    if not path.is_file():
        raise SettingsError(f"file: there is no {path.name} in {path.parent}")
    return path


def by_name(inputs: Mapping[str, T], names: Sequence[str]) -> list[T]:
    """The inputs in the order of a function's argument names where these are the inputs' names, and in
    the order in which they are otherwise: the declared one."""
    if set(inputs) == set(names):
        return [inputs[name] for name in names]
    return list(inputs.values())


def named(result: Any, spec: ModelSpec) -> Values:
    """A model's result as named outputs.

    A mapping keeps its names, and what is not declared is left out; a tuple or list is named in the
    declared order, anything else is the only output. Undeclared outputs are "output_0" and so on.
    Raises: ModelError when a tuple is not as long as the declaration.
    """
    declared = [tensor.name for tensor in spec.outputs]
    if isinstance(result, Mapping):
        return {n: v for n, v in result.items() if not declared or n in declared}
    results = result if isinstance(result, tuple | list) else (result,)
    names = declared or [f"output_{i}" for i in range(len(results))]
    if len(names) != len(results):
        raise ModelError(f"the model returned {len(results)} outputs, not {', '.join(names)}")
    return dict(zip(names, results, strict=True))
