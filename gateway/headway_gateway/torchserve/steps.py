"""A TorchServe request's place in a sequence, as its headers say it.

Knows: the names of the headers, what a request without an id gets. Must not know: HTTP, gRPC, who keeps
sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headway.steps import Step
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.asking import NOWHERE
from headway_gateway.torchserve.heads import request_id


class StepKeys(NamedTuple):
    """What the headers are called."""

    id: str
    starts: str
    ends: str


def step_keys(properties: Properties) -> StepKeys:
    return StepKeys(
        properties.ts_header_key_sequence_id,
        properties.ts_header_key_sequence_start,
        properties.ts_header_key_sequence_end,
    )


def made_id() -> str:
    return f"ts-seq-{request_id()}"


def placed(
    headers: Mapping[str, str], keys: StepKeys, has_sequences: bool | None
) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """The headers of a request, and its options for its sequence, if its model has any (None: nobody knows
    yet, and then one that names a sequence is in it). One that names none begins a new one, and its headers
    then say so. Raises: InvalidInput."""
    if not is_placed(headers, keys, has_sequences):
        return headers, NOWHERE
    if not headers.get(keys.id):
        headers = {**headers, keys.id: made_id(), keys.starts: "true"}
    step = Step(headers[keys.id], _is_true(headers.get(keys.starts)), _is_true(headers.get(keys.ends)))
    return headers, step.options


def is_placed(headers: Mapping[str, str], keys: StepKeys, has_sequences: bool | None) -> bool:
    """Whether a request is in a sequence."""
    return bool(has_sequences or (has_sequences is None and headers.get(keys.id)))


def _is_true(said: str | None) -> bool:
    return said is not None and said.lower() == "true"
