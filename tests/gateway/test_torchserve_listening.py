"""headway_gateway.torchserve.listening, tls, and socket files: addresses other than plain ports."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import uvicorn
import uvloop

from headway.errors import SettingsError
from headway_gateway.doors import Doors, Place, place_of
from headway_gateway.server import bind
from headway_gateway.tls import Server, context_of
from headway_gateway.torchserve import listening
from headway_gateway.torchserve.app import create_doors
from headway_gateway.torchserve.connection import Connection
from headway_gateway.torchserve.listening import contexts_of
from tests.gateway.test_connection import until
from tests.gateway.torchserve_door import Handlers, says, settings_of

LARGE = bytes(200_000)
KEYSTORE = Path(__file__).parent / "keystores" / "chain.p12"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    program = shutil.which("openssl") or pytest.skip("openssl makes the certificate")
    made = {"certificate_file": str(folder / "cert.pem"), "private_key_file": str(folder / "key.pem")}
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-out", made["certificate_file"], "-keyout", made["private_key_file"], "-subj", "/CN=localhost"]
    subprocess.run([program, "req", "-x509", *curve, *names], check=True, capture_output=True)
    return made


def test_addresses_with_https_get_a_context_and_no_others(tmp_path: Path, files: dict[str, str]) -> None:
    said = {"inference_address": "https://127.0.0.1:1", "management_address": "unix:/x", **files}
    assert list(contexts_of(settings_of(tmp_path, **said))) == ["http"]
    assert contexts_of(settings_of(tmp_path, **files)) == {}


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ({}, "needs a keystore, or certificate_file and private_key_file"),
        ({"certificate_file": "/none", "private_key_file": "/none"}, "/none"),
    ],
)
def test_what_is_missing_for_tls_is_named(tmp_path: Path, said: dict[str, str], about: str) -> None:
    with pytest.raises(SettingsError, match=about):
        contexts_of(settings_of(tmp_path, inference_address="https://127.0.0.1:1", **said))


def test_a_keystore_counts_before_the_two_files(tmp_path: Path, files: dict[str, str]) -> None:
    pytest.importorskip("cryptography", reason="reads keystores")
    said = {"inference_address": "https://127.0.0.1:1", "keystore": str(KEYSTORE)}
    assert list(contexts_of(settings_of(tmp_path, **said, **files))) == ["http"]
    with pytest.raises(SettingsError, match="keystore_pass"):
        contexts_of(settings_of(tmp_path, keystore_pass="wrong", **said, **files))


def test_without_the_package_that_reads_keystores_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "find_spec", lambda name: None)
    said = {"inference_address": "https://127.0.0.1:1", "keystore": str(KEYSTORE)}
    with pytest.raises(SettingsError, match="cryptography"):
        contexts_of(settings_of(tmp_path, **said))


def test_one_listener_speaks_tls_another_is_a_file_and_each_has_its_app(tmp_path, files) -> None:
    path = str(tmp_path / "m.sock")
    encrypted, file = bind("127.0.0.1:0"), bind(f"unix:{path}")
    places = {"http": place_of(encrypted.getsockname()), "management": place_of(file.getsockname())}

    async def run() -> None:
        doors = create_doors(Handlers({"m": says(LARGE)}, tmp_path / "store"), settings_of(tmp_path), places)
        config = uvicorn.Config(
            doors, http=Connection, ws="none", lifespan="on", proxy_headers=False, log_config=None
        )
        server = Server(config, {encrypted.getsockname(): context_of(*files.values())})
        serving = asyncio.create_task(server.serve([encrypted, file]))
        await until(lambda: server.started and len(server.servers) == 2)
        trusting = ssl.create_default_context(cafile=files["certificate_file"])
        tls = await asyncio.open_connection(
            "127.0.0.1", places["http"].port, ssl=trusting, server_hostname="localhost"
        )
        head = b"POST /predictions/m HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
        assert (await told(tls, head + LARGE)).endswith(b"connection: close\r\n\r\n" + LARGE)
        plain = await asyncio.open_unix_connection(path)
        answer = await told(plain, b"GET /models HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK") and b'"modelName": "m"' in answer
        serving.cancel()
        await asyncio.wait([serving])
        for serving_at in server.servers:
            serving_at.close()

    uvloop.run(asyncio.wait_for(run(), 10))


async def told(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> bytes:
    reader, writer = connection
    writer.write(request)
    answer = await reader.read(-1)
    writer.close()
    return answer


def test_a_socket_file_that_nobody_listens_at_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    said = f"unix:{tmp_path}/s"
    bind(said).close()
    with bind(said), pytest.raises(OSError, match="in use"):
        bind(said)
    (tmp_path / "s").unlink()
    (tmp_path / "s").write_text("a user's file")
    with pytest.raises(OSError, match="in use"):
        bind(said)


def test_a_door_at_a_socket_file_is_found_by_its_path() -> None:
    place = place_of("/run/m.sock")
    doors = Doors(
        {"http": "inference", "management": "management"}, {"http": Place("::", 1), "management": place}
    )
    assert doors.at(place) == "management" and doors.at(("::1", 1, 0, 0)[:2]) == "inference"
    assert str(place) == "unix:/run/m.sock" and not place.is_everywhere
    with socket.socket() as unbound:
        assert place_of(unbound.getsockname()) == Place("0.0.0.0", 0)
