"""How the TorchServe door listens: with TLS where an address says `https`.

Knows: the properties that say so. Must not know: sockets, servers, what a keystore is made of.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from ssl import SSLContext

from headway.errors import SettingsError
from headway.settings import GatewaySettings
from headway.torchserve.addresses import parse_address
from headway.torchserve.properties import Properties, load_properties
from headway_gateway.doors import INFERENCE, MANAGEMENT, METRICS
from headway_gateway.tls import context_of, context_of_pem

_SAID = {INFERENCE: "inference_address", MANAGEMENT: "management_address", METRICS: "metrics_address"}


def contexts_of(settings: GatewaySettings) -> dict[str, SSLContext]:
    """By the door's name, for those with TLS. Raises: SettingsError."""
    properties = load_properties(Path(settings.torchserve))
    doors = [door for door, key in _SAID.items() if parse_address(getattr(properties, key), key).tls]
    return dict.fromkeys(doors, _context(properties)) if doors else {}


def _context(properties: Properties) -> SSLContext:
    """The keystore counts before the two files, as in TorchServe."""
    if properties.keystore:
        key, chain = pair_of(properties)
        return context_of_pem(key + chain, f"keystore: {properties.keystore}")
    if properties.certificate_file and properties.private_key_file:
        return context_of(properties.certificate_file, properties.private_key_file)
    raise SettingsError("https needs a keystore, or certificate_file and private_key_file")


def pair_of(properties: Properties) -> tuple[bytes, bytes]:
    """The keystore's key and certificates, in PEM. Raises: SettingsError."""
    if not find_spec("cryptography"):  # of headway[torchserve], and nobody else's
        raise SettingsError("keystore: the package cryptography reads it, and is not installed")
    keystores = import_module("headway_gateway.torchserve.keystores")
    pair = keystores.read_keystore(properties.keystore, properties.keystore_pass)
    return pair.key, pair.chain
