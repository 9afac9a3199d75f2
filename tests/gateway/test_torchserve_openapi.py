"""headway_gateway.torchserve.openapi: the descriptions, byte by byte those that a TorchServe 0.12 gave.

Only their digests are kept here. (The documents are in the recordings of `tests/torchserve`.)
"""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from headway_gateway.torchserve.openapi import management_of_model, of_doors, of_model
from headway_gateway.torchserve.refusal import written

DIGESTS = {
    ("http",): "a5d6b9ff9740686f2d23946db2f910aebc0826c77194343798d3635871de7e69",
    ("management",): "6082af7cdcd477c2067f06777e83a919f5660120e28743f8b6b2bc86e4bd634b",
    ("metrics",): "b430d5470884e5f822ef8d3d611ffd81e288f19337121bca83175fe08f15250e",
    ("http", "management"): "907e7ca01c820a05f1dd884e5a61afd1dbc5d52a0750c4e4bc5505195c047cad",
}


def digest(document: bytes) -> str:
    return sha256(document).hexdigest()


@pytest.mark.parametrize("doors", DIGESTS)
def test_an_address_describes_itself_as_torchserve_s_does(doors: tuple[str, ...]) -> None:
    assert digest(written(of_doors(doors))) == DIGESTS[doors]


def test_a_model_is_described_as_torchserve_does() -> None:
    assert (
        digest(written(of_model("m"))) == "044fe217635d0360add63131d67c65180b2ea420640c4ca0a8950c0a09c91093"
    )
    managed = asyncio.run(management_of_model("m"))
    assert digest(managed) == "53a853417d5e64eaa7e7d809dbf2a9adc4c7d7110b17cc29f4f896c540dbe44c"
