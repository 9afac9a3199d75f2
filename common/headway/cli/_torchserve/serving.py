"""Runs a server that speaks TorchServe, from its properties to its end.

Knows: the order of the steps. Must not know: the steps themselves.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from headway import __version__
from headway.cli._torchserve import selfsigned
from headway.cli._torchserve.devices import count_cores, count_gpus, devices_for
from headway.cli._torchserve.fetching import fetched, forget
from headway.cli._torchserve.folder import fresh, has_owner, shared_for
from headway.cli._torchserve.herald import About, Herald
from headway.cli._torchserve.logfiles import LogFiles
from headway.cli._torchserve.pidfile import PidFile
from headway.cli._torchserve.processes import (
    PROPERTIES,
    Doors,
    Stack,
    doors_of,
    grpc_ports,
    has_grpc,
    threads_for,
)
from headway.cli._torchserve.selfsigned import certified
from headway.cli.rundir import check_http
from headway.cli.supervisor import Supervisor
from headway.errors import SettingsError
from headway.locks import LockHeld
from headway.settings import TOKEN_FILE, Shared
from headway.torchserve.keys import Keys
from headway.torchserve.properties import Properties
from headway.torchserve.reading import Read
from headway.torchserve.registration import remove_all, write_version
from headway.torchserve.requirements import InstallError, installed
from headway.torchserve.startup import Startup, shown, startup_of

LOOK_S = 0.1


@dataclass(frozen=True)
class Plan:
    """What to serve, all of it checked, and nothing started or fetched. `workers_default`: workers of a model
    of which nothing says how many."""

    shared: Shared
    properties: Properties
    startup: Startup
    doors: Doors
    devices: str
    workers_default: int
    warnings: tuple[str, ...]


def planned(read: Read, shared: Shared, environment: Mapping[str, str], patience_s: float = 0.0) -> Plan:
    """`patience_s`: how long to wait for what a server that was killed has left to end. Raises: SettingsError
    for addresses that cannot be had, and a snapshot that cannot be restored."""
    properties = read.properties
    doors = doors_of(properties)
    own = shared_for(shared, doors.inference.port)
    give_up = time.monotonic() + patience_s
    while has_owner(own) and time.monotonic() < give_up:
        time.sleep(LOOK_S)
    _check_doors(doors, give_up)
    devices = devices_for(properties.number_of_gpu, count_gpus(environment))
    cores = count_cores()
    gpus = 0 if devices == "cpu" else devices.count(",") + 1
    workers_default = properties.default_workers_per_model or gpus or cores
    startup = startup_of(properties, workers_default)
    warnings = [*read.warnings]
    if properties.enable_grpc and not has_grpc():
        warnings.append("no gRPC: grpcio is not installed")
    return Plan(own, properties, startup, doors, devices, workers_default, tuple(warnings))


def _check_doors(doors: Doors, give_up: float) -> None:
    """Raises: SettingsError for addresses that somebody has, and at `give_up` still has."""
    addresses = {
        "inference_address": doors.inference,
        "management_address": doors.management,
        "metrics_address": doors.metrics,
    }
    for key, door in addresses.items():
        while door and not door.path:
            try:
                check_http(str(door), key)
                break
            except SettingsError:
                if time.monotonic() >= give_up:
                    raise
                time.sleep(LOOK_S)


def serve(plan: Plan, pid_file: PidFile, echo: bool, on_ready: Callable[[], None]) -> int:
    """Start, keep, stop; nothing is left behind. Returns the exit code. Raises: SettingsError."""
    properties = plan.properties
    keys = Keys(Path(properties.key_file), properties.token_expiration_min)
    with ExitStack() as held:
        _take(pid_file, held)
        logs = LogFiles(Path(properties.log_location), echo)
        store = held.enter_context(fresh(plan.shared))
        held.callback(remove_all, store)
        with interruptible():  # it may take minutes
            plan = _with_fetched(_certified(plan), logs)
            warnings = _write(plan, store)
        if not properties.disable_token_authorization:
            keys.make(properties.headway_tokens_survive)
            if not properties.headway_tokens_survive:
                held.callback(keys.remove)
        workers = plan.startup.workers
        threads = threads_for(count_cores(), workers)
        stack = Stack(plan.shared, properties, store, plan.devices, threads, workers)
        ports = grpc_ports(properties)
        about = About(plan.shared, properties, plan.startup, plan.doors.inference, ports)

        def ready() -> None:
            logs.say("Model server started.")
            on_ready()

        herald = Herald(about, logs.say, ready)
        supervisor = Supervisor(stack.ranks(logs), logs.say, on_stop=herald.stopping)
        with supervisor, logs, herald:
            _introduce(plan, threads, warnings, logs.say)
            return int(supervisor.run())


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends what is in here as Ctrl-C does: tidied up. (Later the supervisor takes both.)"""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _take(pid_file: PidFile, held: ExitStack) -> None:
    try:
        pid_file.take()
    except (LockHeld, OSError) as error:
        raise SettingsError(f"{pid_file.path}: {error}") from None
    held.callback(pid_file.remove)


def _certified(plan: Plan) -> Plan:
    doors = plan.doors
    tls = any(door.tls for door in (doors.inference, doors.management, doors.metrics) if door)
    properties = certified(plan.properties, plan.shared.state_dir, tls)
    if properties is plan.properties:
        return plan
    return replace(plan, properties=properties, warnings=(*plan.warnings, selfsigned.WARNING))


def _with_fetched(plan: Plan, logs: LogFiles) -> Plan:
    """The plan with what it names by URL, which is in the model store from here on."""
    if not plan.startup.urls:
        return plan
    for url in plan.startup.urls:
        logs.say(f"fetching {shown(url)}")
    fates = fetched(plan.properties, plan.startup.urls, logs.server)
    startup = startup_of(plan.properties, plan.workers_default, fates)
    forget(fates, startup)
    return replace(plan, startup=startup)


def _write(plan: Plan, store: Path) -> list[str]:
    """The files that the processes read; what could not be."""
    token = plan.shared.state_dir / TOKEN_FILE  # made before the broker does: the gateway may be quicker
    token.touch(mode=0o600)
    token.write_text(secrets.token_urlsafe(32))
    warnings, failed = [], dict(plan.startup.failed)
    for registration in plan.startup.registrations:
        try:
            if plan.properties.install_py_dep_per_model:
                registration = installed(registration)
            write_version(store, registration, plan.properties)
        except InstallError as error:
            failed[registration.model] = str(error)
            warnings.append(f"Failed to load model: {registration.url}: {error}: {error.said}")
    replace(plan.properties, not_started=failed).write(plan.shared.run_dir / PROPERTIES)
    return warnings


def _introduce(plan: Plan, threads: int, warnings: list[str], say: Callable[[str], None]) -> None:
    properties = plan.properties
    say(f"Headway {__version__} speaking TorchServe 0.12.0")
    for line in (*plan.warnings, *plan.startup.warnings, *warnings):
        say(f"warning: {line}")
    facts = {
        "Inference address": properties.inference_address,
        "Management address": properties.management_address,
        "Metrics address": properties.metrics_address if properties.enable_metrics_api else "none",
        "Model Store": properties.model_store or "N/A",
        "Initial Models": ",".join(map(shown, properties.load_models.split(","))) or "N/A",
        "Log dir": properties.log_location,
        "Metrics dir": properties.metrics_location,
        "Devices": plan.devices,
        "CPU threads in each worker": threads,
        "Run directory": plan.shared.run_dir,
        "Key file": "none" if properties.disable_token_authorization else properties.key_file,
    }
    for label, fact in facts.items():
        say(f"{label}: {fact}")
