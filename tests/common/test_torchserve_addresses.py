"""Addresses as TorchServe's properties name them."""

from __future__ import annotations

import pytest

from headway.errors import SettingsError
from headway.torchserve.addresses import Address, parse_address


@pytest.mark.parametrize(
    ("said", "key", "meant"),
    [
        ("http://127.0.0.1:8080", "inference_address", Address("127.0.0.1", 8080)),
        ("https://0.0.0.0:8443", "inference_address", Address("0.0.0.0", 8443, tls=True)),
        ("http://host", "inference_address", Address("host", 80)),
        ("https://host", "management_address", Address("host", 8444, tls=True)),
        ("http://host/", "metrics_address", Address("host", 8082)),
        ("http://[::1]:8080", "inference_address", Address("[::1]", 8080)),
        ("unix:/tmp/ts.sock", "management_address", Address(path="/tmp/ts.sock")),
    ],
)
def test_an_address_is_read(said: str, key: str, meant: Address) -> None:
    assert parse_address(said, key) == meant


def test_an_address_is_said_as_the_gateway_takes_it() -> None:
    assert str(Address("[::1]", 8080)) == "[::1]:8080"
    assert str(Address(path="/tmp/s")) == "unix:/tmp/s"


@pytest.mark.parametrize(
    "said",
    ["", "127.0.0.1:80", "ftp://h:1", "http://", "http://h:x", "unix:rel", "http://h:0", "http://h:1/p"],
)
def test_what_is_none_is_refused_with_its_key(said: str) -> None:
    with pytest.raises(SettingsError, match="metrics_address: Invalid"):
        parse_address(said, "metrics_address")
