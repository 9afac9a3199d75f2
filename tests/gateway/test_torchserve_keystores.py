"""headway_gateway.torchserve.keystores: what keytool made is read; how it made it says keystores/make.sh."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from headway.errors import SettingsError

pytest.importorskip("cryptography", reason="reads keystores")

from cryptography.x509 import load_pem_x509_certificates

from headway_gateway.tls import context_of_pem
from headway_gateway.torchserve.keystores import read_keystore

FOLDER = Path(__file__).parent / "keystores"
PASSWORD, ANOTHER = "changeit", "in-secret"


def subjects(file: str, password: str = PASSWORD) -> list[str]:
    pair = read_keystore(str(FOLDER / file), password)
    assert isinstance(context_of_pem(pair.key + pair.chain, file), ssl.SSLContext), (
        "key and certificate agree"
    )
    return [one.subject.rfc4514_string() for one in load_pem_x509_certificates(pair.chain)]


def test_the_certificate_comes_with_those_that_vouch_for_it_in_their_order() -> None:
    assert subjects("chain.p12") == ["CN=localhost", "CN=Test middle", "CN=Test root"]


def test_of_several_keys_the_first_counts_with_its_own_certificate_alone() -> None:
    assert subjects("two.p12", ANOTHER) == ["CN=first"]


def test_what_java_8_wrote_is_read() -> None:
    assert subjects("java8.p12") == ["CN=old"]


@pytest.mark.parametrize(
    ("file", "password", "said"),
    [
        ("chain.p12", "wrong", "chain.p12: keystore_pass is not its password"),
        ("chain.p12", "", "chain.p12: keystore_pass is not its password"),
        ("trusted.p12", PASSWORD, "trusted.p12: No key entry found in keystore"),
        ("make.sh", PASSWORD, "make.sh is no PKCS12 file"),
        ("none.p12", PASSWORD, "none.p12: No such file or directory"),
        ("old.jks", PASSWORD, "old.jks is a JKS file, which only Java reads"),
    ],
)
def test_what_is_wrong_with_a_keystore_is_said_without_its_password(
    file: str, password: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_keystore(str(FOLDER / file), password)
    assert said in str(caught.value)
    assert not password or f"{password!r}" not in str(caught.value)


def test_a_file_of_javas_own_form_comes_with_the_command_that_converts_it() -> None:
    old, new = FOLDER / "old.jks", FOLDER / "old.p12"
    with pytest.raises(SettingsError) as caught:
        read_keystore(str(old), PASSWORD)
    options = f"-srckeystore {old} -srcstoretype JKS -destkeystore {new} -deststoretype PKCS12"
    assert str(caught.value).endswith(f": keytool -importkeystore {options}")
