"""How the TorchServe door listens: with TLS where an address says `https`.

Knows: the properties that say so. Must not know: sockets, servers.

TorchServe's Java keystores are not read: `openssl pkcs12` makes a certificate and a key of one.
"""

from __future__ import annotations

from pathlib import Path
from ssl import SSLContext

from headway.errors import SettingsError
from headway.settings import GatewaySettings
from headway.torchserve.addresses import parse_address
from headway.torchserve.properties import Properties, load_properties
from headway_gateway.doors import INFERENCE, MANAGEMENT, METRICS
from headway_gateway.tls import context_of

_SAID = {INFERENCE: "inference_address", MANAGEMENT: "management_address", METRICS: "metrics_address"}


def contexts_of(settings: GatewaySettings) -> dict[str, SSLContext]:
    """By the door's name, for those with TLS. Raises: SettingsError."""
    properties = load_properties(Path(settings.torchserve))
    doors = [door for door, key in _SAID.items() if parse_address(getattr(properties, key), key).tls]
    return dict.fromkeys(doors, _context(properties)) if doors else {}


def _context(properties: Properties) -> SSLContext:
    if properties.certificate_file and properties.private_key_file:
        return context_of(properties.certificate_file, properties.private_key_file)
    if properties.keystore:
        raise SettingsError(
            f"keystore: {properties.keystore} is not read here. Set certificate_file and private_key_file:"
            f" openssl pkcs12 -in {properties.keystore} -nodes -nokeys -out cert.pem,"
            f" openssl pkcs12 -in {properties.keystore} -nodes -nocerts -out key.pem"
        )
    raise SettingsError("https needs certificate_file and private_key_file")
