"""A certificate for `https://` addresses where nobody named one: made for the run, and trusted by nobody.

The key and the certificate are files that only their owner can read, in a folder that goes with the run.

Knows: the package `cryptography`, where there is one. Must not know: who listens.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from headway.torchserve.properties import Properties

WARNING = (
    "https without a keystore, and without certificate_file and private_key_file: a certificate was made for"
    " this run, which no client trusts"
)
LIFE = timedelta(days=3650)


def certified(properties: Properties, folder: Path, tls: bool) -> Properties:
    """The properties with a certificate, made in `folder` if there is `tls` and no certificate. Without
    `cryptography` they stay as they are, and the gateway says what is missing."""
    named = properties.keystore or (properties.certificate_file and properties.private_key_file)
    if named or not tls or not find_spec("cryptography"):
        return properties
    key, certificate = folder / "own-key.pem", folder / "own-certificate.pem"
    for path, content in zip((key, certificate), _pair(), strict=True):
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(content)
    return replace(properties, private_key_file=str(key), certificate_file=str(certificate))


def _pair() -> tuple[bytes, bytes]:
    """A key and its certificate, in PEM."""
    from cryptography import x509  # of headway[torchserve], and needed for this alone
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    hosts = dict.fromkeys(("localhost", socket.gethostname()))
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts if host.isascii()]
    names += [x509.IPAddress(ipaddress.ip_address(at)) for at in ("127.0.0.1", "::1")]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    own = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return own, certificate.public_bytes(serialization.Encoding.PEM)
