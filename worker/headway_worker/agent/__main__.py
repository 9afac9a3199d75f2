"""The door of the host agent: `headway-agent`, or `python -m headway_worker.agent`."""

from __future__ import annotations

import os
import secrets
import socket
import sys

import click

from headway import keys, locks, logs
from headway.cli.options import settings_options
from headway.dealers import dial
from headway.errors import SettingsError
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import AgentSettings
from headway_worker.agent import devices
from headway_worker.agent.children import Children
from headway_worker.agent.launch import Launch
from headway_worker.agent.loop import Loop
from headway_worker.agent.orders import Crew
from headway_worker.agent.session import Session
from headway_worker.agent.stuck import ender
from headway_worker.agent.units import Units

_log = logs.get("headway.agent")


@click.command()
@settings_options(AgentSettings)
def main(settings: AgentSettings) -> None:
    """Start and stop the workers of this host when the broker asks."""
    notifier = Notifier.from_environment()
    offer = devices.offer(settings)
    launch = Launch(settings, click.get_current_context().params.get("config"))
    lock = _lock(launch)
    host = socket.gethostname()
    name = settings.name or host
    end_stuck = ender(launch.run_dir, offer)
    crew: Crew = Units(launch, end_stuck) if settings.workers_as == "units" else Children(launch, end_stuck)
    address, identity = settings.workers_address, f"{name[:100]}.".encode() + secrets.token_bytes(8)
    curve = keys.to_broker(settings, address, keys.WORKER)
    session = Session(name, host, offer, settings.drain_s)
    loop = Loop(session, crew, lambda: dial(address, identity, curve), notifier)
    _log.info("agent starts", name=name, devices=",".join(d.device for d in offer.devices))
    code = loop.run()
    os.close(lock)
    sys.exit(code)


def _lock(launch: Launch) -> int:
    """Ours until the end of the process. Ends it if another agent has it."""
    try:
        launch.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return locks.take(launch.lock)
    except locks.LockHeld:
        _log.error("cannot start", reason=f"another agent runs in {launch.run_dir}")
        sys.exit(Exit.LOCKED)
    except OSError as error:
        raise SettingsError(f"run_dir: {launch.run_dir}: {error.strerror}") from None


if __name__ == "__main__":
    main()
