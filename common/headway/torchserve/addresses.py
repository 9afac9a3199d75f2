"""Addresses as TorchServe's properties name them: `http://HOST:PORT`, `https://…`, `unix:PATH`.

Knows: their form, the ports that count where none is named. Must not know: sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headway.errors import SettingsError

# Ports where none is named: without TLS, with it.
PORTS = {
    "inference_address": (80, 443),
    "management_address": (8081, 8444),
    "metrics_address": (8082, 8445),
}
_FORM = re.compile(
    r"(?:(?P<scheme>https?)://(?P<host>\[[^\]]+\]|[^:/\s]+)(?::(?P<port>\d+))?/?|unix:(?P<path>/.+))"
)


@dataclass(frozen=True)
class Address:
    """Either host and port, or the `path` of a socket. Equal ones share a listener."""

    host: str = ""
    port: int = 0
    tls: bool = False
    path: str = ""

    def __str__(self) -> str:
        """HOST:PORT, or unix:PATH."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def parse_address(said: str, key: str) -> Address:
    """What a property says. Raises: SettingsError naming it."""
    found = _FORM.fullmatch(said.strip())
    if not found:
        raise SettingsError(
            f"{key}: Invalid binding address: {said!r}; it is http://HOST:PORT, https://… or unix:PATH"
        )
    if found["path"]:
        return Address(path=found["path"])
    tls = found["scheme"] == "https"
    port = int(found["port"]) if found["port"] else PORTS[key][tls]
    if not 0 < port < 65536:
        raise SettingsError(f"{key}: Invalid port number: {port}")
    return Address(found["host"], port, tls)
