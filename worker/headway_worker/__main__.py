"""The door of a worker: `headway-worker`, or `python -m headway_worker`."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click

from headway import logs, shm
from headway.cli.options import settings_options
from headway.settings import WorkerSettings
from headway_worker import device
from headway_worker.leash import Leash
from headway_worker.loop import Loop
from headway_worker.pages import pages_for
from headway_worker.runner import Runner
from headway_worker.session import About, Session
from headway_worker.sharing import Sharing

_log = logs.get("headway.worker")


@click.command()
@settings_options(WorkerSettings)
def main(settings: WorkerSettings) -> None:
    """Run models for the broker, on one device."""
    chosen = device.parse(settings.device)
    device.set_threads(settings.threads)
    name = settings.name or f"worker-{os.getpid()}"
    about = About(name, socket.gethostname(), os.getpid(), str(chosen))
    lock = Path(settings.agent_lock)
    leash = Leash(lock, settings.orphan_s, time.monotonic()) if settings.agent_lock else None
    loop = Loop(Session(about, drain_s=settings.drain_s), settings.workers_address, name, leash)
    _log.info("worker starts", name=name, device=str(chosen))
    sharing = Sharing(shm.folder_of(settings.workers_address), pages_for(chosen))
    runner = Runner(chosen, loop.exchange.report, time.monotonic, sharing, loop.exchange)
    sys.exit(loop.run(runner))


if __name__ == "__main__":
    main()
