"""Half precision and memory formats, as a model's `model.toml` wants them: `precision`, `channels_last`.

Knows: dtypes and memory formats of torch. Must not know: devices, batches, any one backend.

Callers see the declared dtypes whatever the precision is: inputs are cast where the model is, after the copy
to it, and outputs where it is, before the copy back. Masks, integers and BYTES are left alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headway.errors import SettingsError
from headway.models import ModelSpec
from headway.tensors import BYTES
from headway_worker.collate import Value, Values

_IMAGES = 4  # dimensions


def module_to(module: Any, spec: ModelSpec, device: torch.device) -> Any:
    """A `torch.nn.Module` (a scripted one too) on the device, in the model's precision and memory format."""
    module = module.to(device)
    if spec.precision != "float32":
        module = module.to(getattr(torch, spec.precision))
    return module.to(memory_format=torch.channels_last) if spec.channels_last else module


def refuse_casting(spec: ModelSpec, why: str) -> None:
    """For backends that cannot change a model. Raises: SettingsError naming the key, and why."""
    if spec.precision != "float32":
        raise SettingsError(f"precision: {spec.precision} is not possible: {why}")
    if spec.channels_last:
        raise SettingsError(f"channels_last is not possible: {why}")


class Casting:
    """What happens to a model's inputs and outputs on its device."""

    def __init__(self, spec: ModelSpec) -> None:
        self._precision: torch.dtype | None = None
        if spec.precision != "float32":
            self._precision = getattr(torch, spec.precision)
        self._channels_last = spec.channels_last
        floats = [out for out in spec.outputs if _is_floating(out.dtype)]
        self._declared = {out.name: getattr(torch, out.dtype) for out in floats}
        self.is_needed = self._precision is not None or self._channels_last

    def inputs(self, values: Values) -> Values:
        """As the model takes them; tensors that are so already stay the same."""
        return {n: self._shaped(v) for n, v in values.items()} if self.is_needed else values

    def outputs(self, values: Values) -> Values:
        """As callers are told: floats of the declared dtype, or float32 where none is declared."""
        if self._precision is None:
            return values
        return {name: self._declare(name, value) for name, value in values.items()}

    def _shaped(self, value: Value) -> Value:
        if not isinstance(value, Tensor):
            return value
        if self._precision is not None and value.is_floating_point():
            value = value.to(self._precision)
        if self._channels_last and value.dim() == _IMAGES:
            value = value.contiguous(memory_format=torch.channels_last)
        return value

    def _declare(self, name: str, value: Value) -> Value:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.to(self._declared.get(name, torch.float32))


def _is_floating(dtype: str) -> bool:
    return dtype != BYTES.name and bool(getattr(torch, dtype).is_floating_point)
