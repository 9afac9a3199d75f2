"""The processes of a stack that speaks TorchServe: which there are, and what each is told.

Knows: the parts' options. Must not know: what is in them: they are started by name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headway.cli._torchserve.logfiles import LogFiles
from headway.cli.supervisor import Command
from headway.settings import Shared
from headway.torchserve.addresses import Address, parse_address
from headway.torchserve.properties import Properties

BROKER_STOP_S, AGENT_STOP_S, GATEWAY_STOP_S = 2.0, 15.0, 12.0
DRAIN_S = 10.0  # a worker may finish its batch
PLACES_LEAST = 64  # workers that a device may have: TorchServe knows no bound
GRPC = "headway_gateway.torchserve.grpc"
PROPERTIES = "torchserve.json"  # in the run directory
METRICS = "metrics"  # folder there, in which both doors count


@dataclass(frozen=True)
class Doors:
    """Where the gateway listens. Equal addresses share one listener, so the later one is None."""

    inference: Address
    management: Address | None
    metrics: Address | None


@dataclass(frozen=True)
class Stack:
    """What to start. `threads` are torch's in each worker; `workers`, those that a start orders."""

    shared: Shared
    properties: Properties
    store: Path
    devices: str
    threads: int
    workers: int

    def ranks(self, logs: LogFiles) -> list[list[Command]]:
        """The processes in the order they are started."""
        doors = [self._gateway(logs)]
        if grpc_ports(self.properties):
            doors.append(self._grpc(logs))
        return [[self._broker(logs)], [self._agent(logs)], doors]

    def _broker(self, logs: LogFiles) -> Command:
        options = {"model_store": self.store}
        return self._command("broker", "headway_broker", BROKER_STOP_S, logs.server, **options)

    def _agent(self, logs: LogFiles) -> Command:
        """No worker before a model asks for one."""
        places = max(PLACES_LEAST, self.workers)
        options = {
            "devices": self.devices,
            "places": places,
            "workers_max": places * (self.devices.count(",") + 1),
            "workers_wanted": 0,
            "copies_max": self.properties.headway_copies_per_worker,
            "threads": self.threads,
            "drain_s": DRAIN_S,
            "broker": "",
        }
        return self._command("agent", "headway_worker.agent", AGENT_STOP_S, logs.agent, **options)

    def _gateway(self, logs: LogFiles) -> Command:
        doors = doors_of(self.properties)
        options = {
            "http": doors.inference,
            "management": doors.management or "",
            "metrics": doors.metrics or "",
            "torchserve": self.shared.run_dir / PROPERTIES,
            "body_bytes_max": self.properties.max_request_size,
            "metrics_dir": self.shared.run_dir / METRICS,
            "broker": "",
        }
        return self._command("gateway", "headway_gateway", GATEWAY_STOP_S, logs.server, **options)

    def _grpc(self, logs: LogFiles) -> Command:
        options = {
            "torchserve": self.shared.run_dir / PROPERTIES,
            "metrics_dir": self.shared.run_dir / METRICS,
            "broker": "",
        }
        return self._command("grpc", GRPC, GATEWAY_STOP_S, logs.server, **options)

    def _command(self, called: str, module: str, stop_s: float, output: int, /, **options: object) -> Command:
        shared = {
            key: getattr(self.shared, key) for key in ("run_dir", "state_dir", "log_level", "log_format")
        }
        said = [f"--{key.replace('_', '-')}={value}" for key, value in (shared | options).items()]
        return Command(called, [sys.executable, "-m", module, *said], stop_s, output)


def doors_of(properties: Properties) -> Doors:
    """Which addresses there are. Raises: SettingsError."""
    inference, management, metrics = (
        parse_address(getattr(properties, key), key)
        for key in ("inference_address", "management_address", "metrics_address")
    )
    own_metrics = properties.enable_metrics_api and metrics not in (inference, management)
    return Doors(inference, management if management != inference else None, metrics if own_metrics else None)


def threads_for(cores: int, workers: int) -> int:
    """torch's threads in each worker: the cores, shared out among the workers that a start orders. TorchServe
    gives every worker all of them, and two that compute at a time then wait for each other."""
    return max(cores // max(workers, 1), 1)


def grpc_ports(properties: Properties) -> tuple[Address, ...]:
    """Where the gRPC process listens; nowhere if there is none."""
    if not properties.enable_grpc or not has_grpc():
        return ()
    return (
        Address(properties.grpc_inference_address, properties.grpc_inference_port),
        Address(properties.grpc_management_address, properties.grpc_management_port),
    )


def has_grpc() -> bool:
    """Whether the gRPC process and what it needs are installed."""
    return bool(find_spec("grpc") and find_spec(GRPC))
