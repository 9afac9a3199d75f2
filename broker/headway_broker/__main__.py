"""The door of the broker: `headway-broker`, or `python -m headway_broker`."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time

import click

from headway import __version__, logs
from headway.cli.options import settings_options
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import BrokerSettings
from headway.store import scan
from headway_broker.catalog import Catalog
from headway_broker.router import BrokerLocked, Router, fresh_nonce
from headway_broker.scheduler import BrokerTimes, Scheduler
from headway_broker.state import About
from headway_broker.statefile import StateFile, make_state_dir, token_in

_log = logs.get("headway.broker")


@click.command()
@settings_options(BrokerSettings)
def main(settings: BrokerSettings) -> None:
    """Batch requests by model and dispatch them to workers."""
    faulthandler.enable()  # a watchdog ends it with SIGABRT: the log shall say where it stood
    notifier = Notifier.from_environment()
    make_state_dir(settings.state_dir)
    state = StateFile(settings.state_dir, settings.model_store)
    desired, problem = state.read()
    if problem:
        _log.error("orders were lost", reason=problem)
    found = scan(settings.model_store)
    for (model, version), reason in found.broken.items():
        _log.warning("model refused", model=model, version=version, reason=reason)
    times = BrokerTimes(settings.heartbeat_ms / 1000, settings.silence_s, settings.load_timeout_s)
    catalog = Catalog(found.specs, found.broken, desired)
    scheduler = Scheduler(catalog, fresh_nonce(), times, about=_about(settings, problem))
    router = Router(settings, scheduler, state, notifier)
    try:
        router.open()
    except BrokerLocked as error:
        _log.error("cannot start", reason=str(error))
        sys.exit(Exit.LOCKED)
    _log.info("broker listens", address=settings.callers_address, models=len(found.specs))
    try:
        router.run()
    finally:
        router.close()
        _log.info("broker stopped")


def _about(settings: BrokerSettings, restored: str) -> About:
    now = time.monotonic()
    return About(
        socket.gethostname(),
        os.getpid(),
        __version__,
        str(settings.model_store.absolute()),
        str(settings.state_dir.absolute()),
        token_in(settings.state_dir),
        restored,
        now,
        time.time() - now,
    )


if __name__ == "__main__":
    main()
