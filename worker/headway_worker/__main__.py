"""The door of a worker: `headway-worker`, or `python -m headway_worker`."""

from __future__ import annotations

import faulthandler
import io
import os
import secrets
import socket
import sys
import time
from functools import partial
from pathlib import Path

import click

from headway import keys, logs, shm
from headway.cli.options import end, settings_options
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import WorkerSettings
from headway_worker import device
from headway_worker.cuda_mps import ControlError
from headway_worker.exchange import Exchange
from headway_worker.faults import DeviceFault
from headway_worker.leash import Leash
from headway_worker.leaving import leave
from headway_worker.loop import Loop
from headway_worker.pages import pages_for
from headway_worker.place import Place, leave_stuck, take
from headway_worker.runner import Runner
from headway_worker.session import About, Session
from headway_worker.sharing import Sharing

_log = logs.get("headway.worker")


@click.command()
@settings_options(WorkerSettings)
def main(settings: WorkerSettings) -> None:
    """Run models for the broker, on one device."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a model prints is seen at once, line by line
    faulthandler.enable()  # a watchdog ends it with SIGABRT: the log shall say where it stood
    notifier = Notifier.from_environment()
    device.set_threads(settings.threads)
    place = _place(settings)
    name = settings.name or f"worker-{os.getpid()}"
    facts = place.facts | ({"copies_max": settings.copies_max} if settings.copies_max else {})
    about = About(name, socket.gethostname(), os.getpid(), place.name, facts)
    address = settings.workers_address
    curve = keys.to_broker(settings, address, keys.WORKER)
    session = Session(about, drain_s=settings.drain_s)
    lock = Path(settings.agent_lock)
    leash = Leash(lock, settings.orphan_s, time.monotonic()) if settings.agent_lock else None
    identity = f"{name[:100]}.".encode() + secrets.token_bytes(8)
    exchange = Exchange(session, address, identity, curve, notifier)
    loop = Loop(exchange, partial(leave_stuck, place), leash)
    _log.info("worker starts", name=name, device=place.name, **facts)
    sharing = Sharing(shm.folder_of(address), pages_for(place.device))
    store = Path(settings.model_store) if settings.model_store else None
    runner = Runner(place.device, exchange.report, time.monotonic, sharing, exchange, store)
    leave(loop.run(runner))


def _place(settings: WorkerSettings) -> Place:
    """Where the worker runs. What may be there later ends the process so that it is started again; and not
    with DEVICE_FAULT, which would make others be started anew."""
    try:
        return take(settings, device)
    except (ControlError, DeviceFault) as error:
        end(Exit.TEMPORARY, f"device {settings.device}: {error}")


if __name__ == "__main__":
    main()
