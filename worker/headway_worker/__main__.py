"""The door of a worker: `headway-worker`, or `python -m headway_worker`."""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial

import click

from headway import logs, shm
from headway.cli.options import end, settings_options
from headway.exits import Exit
from headway.settings import WorkerSettings
from headway_worker import device
from headway_worker.cuda_mps import ControlError
from headway_worker.faults import DeviceFault
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
    device.set_threads(settings.threads)
    place = _place(settings)
    name = settings.name or f"worker-{os.getpid()}"
    about = About(name, socket.gethostname(), os.getpid(), place.name, place.facts)
    loop = Loop(
        Session(about, drain_s=settings.drain_s), settings.workers_address, name, partial(leave_stuck, place)
    )
    _log.info("worker starts", name=name, device=place.name, **place.facts)
    sharing = Sharing(shm.folder_of(settings.workers_address), pages_for(place.device))
    runner = Runner(place.device, loop.exchange.report, time.monotonic, sharing, loop.exchange)
    sys.exit(loop.run(runner))


def _place(settings: WorkerSettings) -> Place:
    """Where the worker runs. What may be there later ends the process so that it is started again; and not
    with DEVICE_FAULT, which would make others be started anew."""
    try:
        return take(settings, device)
    except (ControlError, DeviceFault) as error:
        end(Exit.TEMPORARY, f"device {settings.device}: {error}")


if __name__ == "__main__":
    main()
