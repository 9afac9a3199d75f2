"""headway.cli._torchserve.selfsigned: a certificate where nobody named one, and nowhere else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from headway.cli._torchserve import selfsigned
from headway.cli._torchserve.selfsigned import certified
from headway.torchserve.properties import Properties

pytest.importorskip("cryptography", reason="makes certificates")


def test_the_made_certificate_is_for_this_host_and_its_key_for_its_owner(tmp_path: Path) -> None:
    made = certified(Properties(), tmp_path, tls=True)
    files = [Path(made.certificate_file), Path(made.private_key_file)]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=files[0])
    server.load_cert_chain(*files)
    for host in ("localhost", "127.0.0.1", "::1"):
        to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        caller = client.wrap_bio(back, to, server_hostname=host)
        called = server.wrap_bio(to, back, server_side=True)
        for side in (caller, called):
            with pytest.raises(ssl.SSLWantReadError):
                side.do_handshake()
        caller.do_handshake()
        called.do_handshake()


@pytest.mark.parametrize(
    ("properties", "tls"),
    [
        (Properties(), False),
        (Properties(keystore="/k.p12"), True),
        (Properties(certificate_file="/c", private_key_file="/k"), True),
    ],
)
def test_nothing_is_made_where_it_is_not_needed(tmp_path: Path, properties: Properties, tls: bool) -> None:
    assert certified(properties, tmp_path, tls) is properties
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_that_makes_them_all_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfsigned, "find_spec", lambda name: None)
    properties = Properties()
    assert certified(properties, tmp_path, tls=True) is properties
