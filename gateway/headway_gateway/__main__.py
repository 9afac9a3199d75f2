"""The command `headway-gateway`: settings in, exit code out."""

from __future__ import annotations

import sys

import click

from headway.cli.options import settings_options
from headway.settings import GatewaySettings
from headway_gateway.server import serve


@click.command()
@settings_options(GatewaySettings)
def main(settings: GatewaySettings) -> None:
    """Serve HTTP in front of a broker."""
    sys.exit(serve(settings))


if __name__ == "__main__":
    main()
