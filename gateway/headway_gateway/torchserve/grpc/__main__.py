"""The door of the gRPC process: settings in, exit code out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from headway.cli.options import settings_options
from headway.settings import GatewaySettings

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"


@click.command()
@settings_options(GatewaySettings)
def main(settings: GatewaySettings) -> None:
    """Serve TorchServe's gRPC interfaces in front of a broker."""
    share_metrics(settings)
    from headway_gateway.torchserve.grpc.server import serve  # it imports prometheus_client

    sys.exit(serve(settings))


def share_metrics(settings: GatewaySettings) -> None:
    """Count where the gateway shows it. prometheus_client reads the variable when it is imported. Without a
    folder for both, calls are in the log files only."""
    if settings.metrics_dir:
        Path(settings.metrics_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[MULTIPROC_DIR] = settings.metrics_dir


if __name__ == "__main__":
    main()
