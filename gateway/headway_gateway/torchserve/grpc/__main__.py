"""The door of the gRPC process: settings in, exit code out."""

from __future__ import annotations

import sys

import click

from headway.cli.options import settings_options
from headway.settings import GatewaySettings
from headway_gateway.torchserve.grpc.server import serve


@click.command()
@settings_options(GatewaySettings)
def main(settings: GatewaySettings) -> None:
    """Serve TorchServe's gRPC interfaces in front of a broker."""
    sys.exit(serve(settings))


if __name__ == "__main__":
    main()
