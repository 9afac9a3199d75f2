"""The door of the broker: `headway-broker`, or `python -m headway_broker`."""

from __future__ import annotations

import faulthandler
import sys

import click

from headway import logs
from headway.cli.options import settings_options
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import BrokerSettings
from headway.store import scan
from headway_broker.catalog import Catalog
from headway_broker.router import BrokerLocked, Router, fresh_nonce
from headway_broker.scheduler import BrokerTimes, Scheduler

_log = logs.get("headway.broker")


@click.command()
@settings_options(BrokerSettings)
def main(settings: BrokerSettings) -> None:
    """Batch requests by model and dispatch them to workers."""
    faulthandler.enable()  # a watchdog ends it with SIGABRT: the log shall say where it stood
    notifier = Notifier.from_environment()
    found = scan(settings.model_store)
    for (model, version), reason in found.broken.items():
        _log.warning("model refused", model=model, version=version, reason=reason)
    times = BrokerTimes(settings.heartbeat_ms / 1000, settings.silence_s, settings.load_timeout_s)
    scheduler = Scheduler(Catalog(found.specs, found.broken), fresh_nonce(), times)
    router = Router(settings, scheduler, notifier)
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


if __name__ == "__main__":
    main()
