"""`headway up`: broker, workers and gateway on this machine, for as long as the terminal is open.

Knows: which processes there are and which options they take. Must not know: what is in them: they are
started by name, and their packages are not imported here.

Settings that are no option here reach the processes as ever, by environment and file (but for a worker's
`drain_s`: to stop takes seconds here).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from headway import __version__
from headway.cli.options import config_option, end, setting_option, settings_errors
from headway.cli.rundir import check_http, check_run_dir, check_store, run_dir_of
from headway.cli.supervisor import Command, Supervisor
from headway.cli.watch import Watch, url
from headway.exits import Exit
from headway.settings import BrokerSettings, GatewaySettings, Shared, WorkerSettings, read

GATEWAY_STOP_S, WORKER_STOP_S, AGENT_STOP_S, BROKER_STOP_S = 5.0, 3.0, 8.0, 2.0  # then killed
STORE_WATCH_S = 2.0  # a developer adds a version and sees it
DRAIN_S = 2.0  # a worker ends by itself before it is killed, which others on its GPU might feel
NEEDED = {"torch": "worker", "falcon": "gateway", "gunicorn": "gateway"}  # module: extra it comes with


@dataclass(frozen=True)
class Stack:
    """What to start. `devices` go round among the workers; `threads` 0: the cores shared out evenly."""

    broker: BrokerSettings
    gateway: GatewaySettings
    devices: Sequence[str]
    workers: int
    threads: int
    config: Path | None
    agent: bool = False

    @property
    def threads_each(self) -> int:
        return self.threads or max(len(os.sched_getaffinity(0)) // self.workers, 1)

    def ranks(self) -> list[list[Command]]:
        """The processes in the order they are started."""
        return [
            [self._broker()],
            [self._agent()] if self.agent else [self._worker(i) for i in range(self.workers)],
            [self._gateway()],
        ]

    def _broker(self) -> Command:
        store, watch_s = self.broker.model_store, self.broker.store_watch_s or STORE_WATCH_S
        options = {"model_store": store, "store_watch_s": watch_s}
        return self._command("broker", "headway_broker", BROKER_STOP_S, **options)

    def _worker(self, i: int) -> Command:
        device = self.devices[i % len(self.devices)]
        options = {"name": f"w{i}", "device": device, "threads": self.threads_each, "drain_s": DRAIN_S}
        options["broker"] = ""  # this one, whatever the file says of others
        return self._command(f"w{i}", "headway_worker", WORKER_STOP_S, **options)

    def _agent(self) -> Command:
        """One worker at first, and up to `workers` as the broker asks for them."""
        places = -(-self.workers // len(self.devices))
        options = {"devices": ",".join(self.devices), "places": places, "workers_max": self.workers}
        options |= {"workers_wanted": 1, "threads": self.threads_each, "drain_s": DRAIN_S, "broker": ""}
        return self._command("agent", "headway_worker.agent", AGENT_STOP_S, **options)

    def _gateway(self) -> Command:
        options = {key: getattr(self.gateway, key) for key in ("http", "management", "metrics", "processes")}
        options["broker"] = ""
        return self._command("gateway", "headway_gateway", GATEWAY_STOP_S, **options)

    def _command(self, called: str, module: str, stop_s: float, /, **options: object) -> Command:
        shared = {
            key: getattr(self.broker, key) for key in ("run_dir", "state_dir", "log_level", "log_format")
        }
        config = {"config": self.config} if self.config else {}
        return Command(called, [sys.executable, "-m", module, *_arguments(shared | config | options)], stop_s)


@click.command()
@setting_option(BrokerSettings, "model_store")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="worker processes")
@click.option("--agent", is_flag=True, help="start workers as they are needed, --workers at most")
@setting_option(WorkerSettings, "device", help="auto, cpu, cuda or cuda:N; several, with commas, go round")
@setting_option(WorkerSettings, "threads", help="CPU threads for each worker; 0: cores / workers")
@setting_option(GatewaySettings, "http")
@setting_option(GatewaySettings, "management")
@setting_option(GatewaySettings, "metrics")
@setting_option(GatewaySettings, "processes", flag="--gateway-processes")
@setting_option(Shared, "run_dir")
@setting_option(Shared, "state_dir")
@setting_option(Shared, "log_level")
@setting_option(Shared, "log_format")
@config_option
def command(
    model_store: Path | None,
    workers: int,
    agent: bool,
    device: str | None,
    threads: int | None,
    http: str | None,
    management: str | None,
    metrics: str | None,
    processes: int | None,
    config: Path | None,
    **shared: object,
) -> None:
    """Serve the models of a folder: starts a broker, workers and a gateway, and keeps them running.

    Ctrl-C stops all of it.
    """
    with settings_errors():
        broker = read(BrokerSettings, {"model_store": model_store, **shared}, config)
        addresses = {"http": http, "management": management, "metrics": metrics}
        gateway = read(GatewaySettings, {**addresses, "processes": processes, **shared}, config)
        worker = read(WorkerSettings, {"device": device, "threads": threads, **shared}, config)
        check_installed()
        stack = Stack(broker, gateway, worker.device.split(","), workers, worker.threads, config, agent)
        sys.exit(int(run(stack)))


def run(stack: Stack) -> Exit:
    """Check, start, keep, stop. Raises: SettingsError before anything is started."""
    check_store(stack.broker.model_store)
    check_run_dir(stack.broker)
    host, port = check_http(stack.gateway.http)
    for setting in ("management", "metrics"):
        if other := getattr(stack.gateway, setting):
            check_http(other, setting)
    address = stack.broker.callers_address
    watch = Watch(address, host, port, 1 if stack.agent else stack.workers, say)
    supervisor = Supervisor(stack.ranks(), say, on_stop=watch.close_soon)
    with supervisor, run_dir_of(stack.broker), watch:
        _introduce(stack, url(host, port))
        return supervisor.run()


def say(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _introduce(stack: Stack, http: str) -> None:
    count, threads, devices = stack.workers, stack.threads_each, ",".join(stack.devices)
    say(f"headway {__version__}, models of {stack.broker.model_store}")
    say(f"  http     {http}")
    for label, address in {"manage": stack.gateway.management, "metrics": stack.gateway.metrics}.items():
        if address:
            say(f"  {label:7}  http://{address}")
    say(f"  direct   {stack.broker.callers_address}")
    say(f"  workers  {count}, device {devices}, {threads} CPU thread{'s' * (threads > 1)} each")


def _arguments(options: dict[str, object]) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]


def check_installed() -> None:
    """Ends the process where what the server needs is not there."""
    for module, extra in NEEDED.items():
        if find_spec(module) is None:
            end(Exit.CONFIG, f"{module} is not installed: pip install 'headway[{extra}]'")
