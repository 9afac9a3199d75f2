"""TCP addresses: what is one, and whom it reaches.

Knows: how an address is written. Must not know: sockets, keys, whether names resolve.
"""

from __future__ import annotations

import ipaddress
import re

from headway.errors import SettingsError

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\[\]:/;@\s]+):(?P<port>[0-9]{1,5})", re.ASCII)
_ANY = ("*", "0.0.0.0", "::")
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_tcp(address: str) -> bool:
    """Whether the address is meant to be one of TCP, well written or not."""
    return address.startswith("tcp:")


def check(address: str, where: str) -> None:
    """Raises: SettingsError, beginning with `where`, for what is not `tcp://HOST:PORT`."""
    parts = _TCP.fullmatch(address)
    if not parts or not 0 < int(parts["port"]) < 65536:
        raise SettingsError(
            f"{where}: the address {address!r} is not of the form tcp://HOST:PORT, or tcp://[IPV6]:PORT"
        )


def host_of(address: str) -> str:
    """The host as it is written, without brackets; "" for what is no TCP address."""
    parts = _TCP.fullmatch(address)
    return parts["host"].strip("[]") if parts else ""


def is_ipv6(address: str) -> bool:
    """Whether the host is an IPv6 address, in brackets. Names are looked up as IPv4."""
    return address.startswith("tcp://[")


def is_everywhere(address: str) -> bool:
    """Whether it is every interface: something to listen at, and nobody to connect to."""
    return host_of(address) in _ANY


def reachable(host: str) -> str:
    """The host to connect to, from here, for what listens at `host` (an IPv6 address without brackets)."""
    return _HERE.get(host, host)


def is_loopback(address: str) -> bool:
    """Whether it certainly stays on this host. Of names, only localhost and the interface lo do."""
    host = host_of(address).partition("%")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")
