"""The key and the certificates in a Java keystore, as PEM.

    PKCS12     what Java's keytool makes since Java 9, and openssl: read
    JKS        Java's own, older form: named, with the command that makes a PKCS12 of it

What the file is, its first bytes say, as for Java, and not `keystore_type`. Of several keys the first one
counts, as in TorchServe.

Knows: PKCS12, by the package `cryptography`. Must not know: sockets, who wants the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates, load_pkcs12
from cryptography.x509 import Certificate

from headway.errors import SettingsError

SIZE_BYTES_MAX = 1 << 20
_JAVAS = {b"\xfe\xed\xfe\xed": "JKS", b"\xce\xce\xce\xce": "JCEKS"}


@dataclass(frozen=True, repr=False)
class Pair:
    """In PEM. `chain`: the certificate of the key, then who signed it, and so on."""

    key: bytes
    chain: bytes


def read_keystore(path: str, password: str) -> Pair:
    """Raises: SettingsError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(SIZE_BYTES_MAX)
    except OSError as error:
        raise SettingsError(f"keystore: {path}: {error.strerror}") from None
    if kind := _JAVAS.get(content[:4]):
        raise SettingsError(
            f"keystore: {path} is a {kind} file, which only Java reads. {_conversion(path, kind)}"
        )
    return _pair(path, _opened(path, content, password))


def _conversion(path: str, kind: str) -> str:
    made = Path(path).with_suffix(".p12")
    options = f"-srckeystore {path} -srcstoretype {kind} -destkeystore {made} -deststoretype PKCS12"
    return f"Convert it once, and name the new file: keytool -importkeystore {options}"


def _opened(path: str, content: bytes, password: str) -> PKCS12KeyAndCertificates:
    try:
        return load_pkcs12(content, password.encode())
    except ValueError as error:
        if "password" in str(error):
            raise SettingsError(f"keystore: {path}: keystore_pass is not its password") from None
        raise SettingsError(f"keystore: {path} is no PKCS12 file: {error}") from None


def _pair(path: str, found: PKCS12KeyAndCertificates) -> Pair:
    if found.key is None:
        raise SettingsError(f"keystore: {path}: No key entry found in keystore.")
    if found.cert is None:
        raise SettingsError(f"keystore: {path}: its key has no certificate")
    key = found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    others = [one.certificate for one in found.additional_certs]
    chain = _chain(found.cert.certificate, others)
    return Pair(key, b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))


def _chain(certificate: Certificate, others: list[Certificate]) -> Iterator[Certificate]:
    """Those that vouch for it, up to one that vouches for itself. (Other keys have certificates too.)"""
    yield certificate
    for signer in others:
        if signer != certificate and _has_signed(signer, certificate):
            rest = [other for other in others if other != signer]
            yield from _chain(signer, rest)
            return


def _has_signed(signer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
