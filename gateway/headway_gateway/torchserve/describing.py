"""Descriptions of registered versions, with what is looked at and asked for them.

Knows: the broker's state, workers' processes, how a model is asked for its own description. Must not know:
routes, what a description looks like (that is `descriptions`).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from headway.body import Body
from headway.errors import HeadwayError, NotReady, QueueFull, UnknownModel, WireError
from headway.torchserve.registration import Registration
from headway_gateway.inference import Target
from headway_gateway.torchserve import asking
from headway_gateway.torchserve.descriptions import Process, description, ports, worker
from headway_gateway.torchserve.processes import look_at
from headway_gateway.torchserve.refusal import Refusal

Json = dict[str, Any]


async def described(state: Json, registrations: list[Registration], first_port: int) -> list[Json]:
    """Each of them, as of the broker's state."""
    home = str(state["broker"].get("host", ""))
    hosts = {each["name"]: each for each in state["workers"]}
    entries = [entry_of(state, *registration.key) for registration in registrations]
    used = {copy["worker"] for entry in entries for copy in entry.get("copies", ())}
    processes = await asyncio.to_thread(look_at, [hosts[name] for name in used & hosts.keys()], home)
    numbers = ports(hosts.values(), first_port, home)
    gpu_is_there = any(str(device["device"]).startswith("cuda") for device in state.get("devices", ()))

    def workers(entry: Json) -> list[Json]:
        copies = {copy["worker"]: copy for copy in entry.get("copies", ()) if copy["worker"] in hosts}
        return [
            worker(numbers[name], copies[name], hosts[name], processes.get(name, Process()))
            for name in sorted(copies, key=numbers.__getitem__)
        ]

    return [
        description(registration, entry, workers(entry), gpu_is_there)
        for registration, entry in zip(registrations, entries, strict=True)
    ]


async def own_description(client: Any, state: Json, registration: Registration) -> Json:
    """What the model says of itself; {} where that is no object. Raises: Refusal."""
    target = Target(*registration.key)
    if not entry_of(state, *target).get("copies"):
        raise _no_worker(registration.model)
    asked = asking.ask(target, Body(b"", ""), {}, request_id="describe", lender=client.lender)
    asked = asked._replace(options={**asked.options, "describe": "true"})
    try:
        reply = await client.reply(asked, float(registration.response_timeout_s))
    except (NotReady, QueueFull, UnknownModel, WireError):
        raise _no_worker(registration.model) from None
    except HeadwayError as error:
        raise asking.refusal_of(error, target) from None
    return _table(asking.answer_of(reply).data)


def entry_of(state: Json, model: str, version: str) -> Json:
    """The version in the broker's state; empty if it is not there."""
    return next((e for e in state["models"] if (e["name"], e["version"]) == (model, version)), {})


def _table(data: Any) -> Json:
    try:
        found = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _no_worker(model: str) -> Refusal:
    why = f'Model "{model}" has no worker to serve describe request.'
    text = f"{why} Please use scale workers API to add workers."
    return Refusal(503, "ServiceUnavailableException", text)
