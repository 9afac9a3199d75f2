"""Which app answers on which address: inference, management and metrics are apart, in the same processes.

An ASGI callable that asks the connection for its local address. It cannot be talked into another app by what
a request says (its Host header, its path). A connection asks only once (see `connection`).

Knows: addresses. Must not know: what the apps do, how sockets are bound.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, NamedTuple

INFERENCE, MANAGEMENT, METRICS = "http", "management", "metrics"
ADDRESSES = (INFERENCE, MANAGEMENT, METRICS)  # names of settings


class Place(NamedTuple):
    """Where somebody listens. At a socket file: its path, and no port."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.is_file:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_file(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_everywhere(self) -> bool:
        """Whether connections to any address of this machine arrive here."""
        return not self.is_file and ipaddress.ip_address(self.host.partition("%")[0]).is_unspecified


def place_of(name: Any) -> Place:
    """Of a socket's own address."""
    return Place(name, 0) if isinstance(name, str) else Place(*name[:2])


class Doors:
    """`apps` and `places` by the setting's name. What comes to none of the places is inference."""

    def __init__(self, apps: Mapping[str, Any], places: Mapping[str, Place]) -> None:
        self.apps = dict(apps)
        self._exact = {place: self.apps[name] for name, place in places.items()}
        self._ports = {p.port: self.apps[name] for name, p in places.items() if p.is_everywhere}

    def at(self, server: tuple[str, int | None] | None) -> Any:
        """The app for a connection to this address."""
        if server is None:
            return self.apps[INFERENCE]
        found = self._exact.get(Place(server[0], server[1] or 0))
        return found or self._ports.get(server[1] or 0, self.apps[INFERENCE])

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """A server's start and end is told to the inference app, which opens the client of all."""
        app = self.apps[INFERENCE] if scope["type"] == "lifespan" else self.at(scope.get("server"))
        await app(scope, receive, send)
