"""Backend `torchscript`: a module saved with `torch.jit.save`, by default `model.pt`.

Inputs go to the arguments of the same names where the names agree, otherwise in the declared order. The
module is put into evaluation mode. No options.
"""

from __future__ import annotations

from typing import Any

import torch

from headway.models import ModelSpec
from headway_worker.backends import by_name, model_file, named, refuse_bytes, refuse_unknown
from headway_worker.casting import module_to
from headway_worker.collate import Values


class TorchScript:
    """A scripted or traced module."""

    def load(self, spec: ModelSpec, device: torch.device) -> None:
        refuse_unknown(spec, ())
        refuse_bytes(spec)
        self._spec = spec
        module = torch.jit.load(str(model_file(spec, "model.pt")), map_location=device)
        self._module: Any = module_to(module, spec, device).eval()
        self._names = [a.name for a in self._module.forward.schema.arguments[1:]]  # [0] is self

    def infer(self, inputs: Values) -> Values:
        return named(self._module(*by_name(inputs, self._names)), self._spec)

    def describe(self) -> dict[str, Any]:
        return {"kind": "TorchScript", "arguments": ", ".join(self._names)}

    def close(self) -> None:
        self._module = None
