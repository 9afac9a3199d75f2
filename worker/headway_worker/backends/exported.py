"""Backend `exported`: a program saved with `torch.export.save`, by default `model.pt2`.

Inputs go to the arguments of the same names where the names agree, otherwise in the declared order, to
positional and keyword arguments as the program was exported. Export with a dynamic batch dimension: warm-up
runs a batch of one and a full one, and says when the program takes only one size. No options.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from headway.errors import ModelError, SettingsError
from headway.models import ModelSpec
from headway_worker.backends import by_name, model_file, named, refuse_bytes, refuse_unknown
from headway_worker.casting import refuse_casting
from headway_worker.collate import Values


class Exported:
    """A `torch.export` program."""

    def load(self, spec: ModelSpec, device: torch.device) -> None:
        refuse_unknown(spec, ())
        refuse_bytes(spec)
        refuse_casting(spec, "the program was exported for its dtypes and formats; export it so")
        self._spec = spec
        program = torch.export.load(model_file(spec, "model.pt2"))
        self._positional, self._keywords = _arguments(program)
        self._names = _names(program, self._positional, self._keywords)
        # Also moves the tensors that the program itself makes, which .to() would not.
        self._module: Any = move_to_device_pass(program, device).module()

    def infer(self, inputs: Values) -> Values:
        values = by_name(inputs, self._names)
        count = self._positional
        if len(values) != count + len(self._keywords):
            raise ModelError(f"the program takes {', '.join(self._names)}, got {', '.join(inputs)}")
        keywords = dict(zip(self._keywords, values[count:], strict=True))
        return named(self._module(*values[:count], **keywords), self._spec)

    def describe(self) -> dict[str, Any]:
        return {"kind": "torch.export", "arguments": ", ".join(self._names)}

    def close(self) -> None:
        self._module = None


def _arguments(program: torch.export.ExportedProgram) -> tuple[int, list[str]]:
    """How many positional arguments the program takes, and the names of its keyword arguments."""
    spec: Any = program.call_spec.in_spec
    positional, keywords = spec.children() if hasattr(spec, "children") else spec.children_specs
    if spec.num_leaves != positional.num_children + keywords.num_children:
        raise SettingsError("file: the program takes lists or dicts of tensors; each must be an argument")
    return positional.num_children, list(keywords.context or ())


def _names(program: torch.export.ExportedProgram, positional: int, keywords: list[str]) -> list[str]:
    # The arguments' own names where torch has kept them; the graph's may be changed to be unique.
    signature: Any = program.module_call_graph[0].signature
    names = getattr(signature, "forward_arg_names", None) or list(program.graph_signature.user_inputs)
    return [str(name) for name in names[:positional]] + keywords
