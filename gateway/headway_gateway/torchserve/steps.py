"""A TorchServe request's place in a sequence, as its headers say it.

Knows: the names of the headers, what a request without an id gets. Must not know: HTTP, gRPC, who keeps
sequences.
"""

from __future__ import annotations

from typing import NamedTuple

from headway.outgoing import Asked
from headway.steps import Step
from headway.torchserve.properties import Properties
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


def in_sequence(asked: Asked, keys: StepKeys) -> Asked:
    """The request in the sequence that its headers name, or in a new one. Raises: InvalidInput."""
    headers = asked.options["headers"]
    if not headers.get(keys.id):
        headers = {**headers, keys.id: made_id(), keys.starts: "true"}
    step = Step(headers[keys.id], _is_true(headers.get(keys.starts)), _is_true(headers.get(keys.ends)))
    return asked._replace(options={**asked.options, **step.options, "headers": headers})


def placed(asked: Asked, keys: StepKeys, has_sequences: bool | None) -> Asked:
    """In its sequence, if its model has any; None: nobody knows yet, and then one that names a sequence is.
    Raises: InvalidInput."""
    if has_sequences or (has_sequences is None and asked.options["headers"].get(keys.id)):
        return in_sequence(asked, keys)
    return asked


def _is_true(said: str | None) -> bool:
    return said is not None and said.lower() == "true"
