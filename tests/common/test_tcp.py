"""TCP addresses: what is one, and whom it reaches."""

from __future__ import annotations

import pytest

from headway import tcp
from headway.errors import SettingsError


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.1:7401",
        "tcp://gpu-1.example.org:1",
        "tcp://eth0:65535",
        "tcp://[::1]:7401",
        "tcp://*:7401",
    ],
)
def test_a_host_and_a_port_are_an_address(address: str) -> None:
    tcp.check(address, "broker")
    assert tcp.is_tcp(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.1",
        "tcp://:7401",
        "tcp://10.0.0.1:0",
        "tcp://10.0.0.1:65536",
        "tcp://::1:7401",
        "tcp://a:1;b:2",
        "tcp://user@a:1",
        "tcp://a:1/path",
        "tcp://a b:1",
        "10.0.0.1:7401",
        "tcp:10.0.0.1:7401",
        "",
    ],
)
def test_anything_else_is_refused_with_the_setting_s_name(address: str) -> None:
    with pytest.raises(SettingsError, match="callers_tcp: the address"):
        tcp.check(address, "callers_tcp")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "lo", "[::1]"])
def test_loopback_stays_on_this_host(host: str) -> None:
    assert tcp.is_loopback(f"tcp://{host}:1")


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "0.0.0.0", "*", "[::]", "eth0", "localhost.example.org", "[fe80::1%eth0]"]
)
def test_everything_else_may_not(host: str) -> None:
    assert not tcp.is_loopback(f"tcp://{host}:1")


def test_what_is_everywhere_is_nowhere_to_connect_to() -> None:
    assert all(tcp.is_everywhere(f"tcp://{host}:1") for host in ("*", "0.0.0.0", "[::]"))
    assert not tcp.is_everywhere("tcp://10.0.0.1:1")


def test_brackets_mean_ipv6() -> None:
    assert tcp.is_ipv6("tcp://[::1]:1")
    assert tcp.host_of("tcp://[::1]:1") == "::1"
    assert not tcp.is_ipv6("tcp://localhost:1")
    assert tcp.host_of("ipc:///x") == ""


@pytest.mark.parametrize(
    ("host", "to"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1"), ("lo", "lo")]
)
def test_what_listens_everywhere_is_reached_over_loopback(host: str, to: str) -> None:
    assert tcp.reachable(host) == to
