"""The door of a worker: `headway-worker`, or `python -m headway_worker`."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import click

from headway import keys, logs, shm
from headway.cli.options import settings_options
from headway.settings import WorkerSettings
from headway_worker import device
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
    address = settings.workers_address
    curve = keys.to_broker(settings, address, keys.WORKER)
    loop = Loop(Session(about, drain_s=settings.drain_s), address, name, curve)
    _log.info("worker starts", name=name, device=str(chosen))
    sharing = Sharing(shm.folder_of(address), pages_for(chosen))
    store = Path(settings.model_store) if settings.model_store else None
    runner = Runner(chosen, loop.exchange.report, time.monotonic, sharing, loop.exchange, store)
    sys.exit(loop.run(runner))


if __name__ == "__main__":
    main()
