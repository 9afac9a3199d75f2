from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from headway.body import Body
from headway.errors import SettingsError
from headway.exits import Exit
from headway.settings import GatewaySettings
from headway.stub import AsyncStubClient
from headway.torchserve.properties import Properties
from headway_gateway.torchserve.grpc import server
from headway_gateway.torchserve.grpc.inference import SERVICE, Request
from headway_gateway.torchserve.grpc.server import (
    check_free,
    credentials_of,
    listeners_of,
    options_of,
    serve,
)
from tests.gateway.grpc_site import PROPERTIES, Site, stub_of


def test_each_listener_has_its_own_address_and_ages() -> None:
    properties = Properties(
        grpc_inference_address="::1",
        grpc_inference_port=1,
        grpc_management_max_connection_age_ms=2,
        grpc_management_max_connection_age_grace_ms=3,
    )
    inference, management = listeners_of(properties)
    assert inference.address == "[::1]:1"
    assert management.address == "127.0.0.1:7071"
    options = dict(options_of(properties, management))
    assert options["grpc.max_connection_age_ms"] == 2
    assert options["grpc.max_connection_age_grace_ms"] == 3
    assert not [name for name, _ in options_of(properties, inference) if "age" in name and "conn" in name]


def test_a_connection_is_ended_at_its_age_and_calls_go_on_over_another() -> None:
    async def run() -> None:
        site = Site(grpc_inference_max_connection_age_ms=100, grpc_inference_max_connection_age_grace_ms=100)
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            ping = stub_of(channel, SERVICE, "Ping")
            await ping(Empty(), timeout=10)
            async with asyncio.timeout(10):
                state = channel.get_state()
                while state is grpc.ChannelConnectivity.READY:
                    await channel.wait_for_state_change(state)
                    state = channel.get_state()
            await ping(Empty(), timeout=10, wait_for_ready=True)

    asyncio.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tls")
    key, own = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", own], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return {"enable_grpc_ssl": True, "private_key_file": str(key), "certificate_file": str(own)}


def test_with_ssl_clients_that_trust_the_certificate_are_served(certificate: dict[str, Any]) -> None:
    site = Site(**certificate)
    site.credentials = grpc.ssl_channel_credentials(Path(certificate["certificate_file"]).read_bytes())
    assert site.call(SERVICE, "Ping", Empty()).health


def test_with_ssl_a_keystore_does_where_the_two_files_are_not_named() -> None:
    pytest.importorskip("cryptography", reason="reads keystores")
    from headway_gateway.torchserve.keystores import read_keystore

    keystore = str(Path(__file__).parent / "keystores" / "chain.p12")
    site = Site(enable_grpc_ssl=True, keystore=keystore)
    root = read_keystore(keystore, "changeit").chain.split(b"-----BEGIN")[-1]
    site.credentials = grpc.ssl_channel_credentials(b"-----BEGIN" + root)
    assert site.call(SERVICE, "Ping", Empty()).health


def test_with_ssl_nobody_else_is(certificate: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        Site(**certificate).call(SERVICE, "Ping", Empty())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["private_key_file", "certificate_file"])
def test_ssl_without_its_files_is_refused_by_the_propertys_name(
    name: str, certificate: dict[str, Any]
) -> None:
    for said in ("", "/nowhere/at.all"):
        with pytest.raises(SettingsError, match=name):
            credentials_of(replace(PROPERTIES, **{**certificate, name: said}))


def test_keys_without_a_file_are_refused() -> None:
    with pytest.raises(SettingsError, match="key_file"):
        Site(disable_token_authorization=False).call(SERVICE, "Ping", Empty())


def test_a_busy_address_is_seen_before_grpc_is_told_of_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listener = listeners_of(Properties(grpc_inference_port=port))[0]
        with pytest.raises(OSError, match="Address already in use"):
            check_free(listener)
    check_free(listener)


def test_what_is_in_flight_may_end_when_the_server_stops() -> None:
    async def run() -> None:
        came, release = asyncio.Event(), asyncio.Event()

        class Waiting(AsyncStubClient):
            async def reply(self, asked: Any, timeout_s: float | None = None) -> Any:
                came.set()
                await release.wait()
                return await super().reply(asked)

        site = Site(Waiting({"m": lambda body: Body(b"done")}))
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            predict = stub_of(channel, SERVICE, "Predictions")
            call = asyncio.ensure_future(predict(Request(model_name="m"), timeout=10))
            await asyncio.wait_for(came.wait(), 10)
            stopping = asyncio.ensure_future(servers.stop(5))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            release.set()
            assert (await call).prediction == b"done"
            await stopping

    asyncio.run(run())


def settings_of(folder: Path, properties: Properties) -> GatewaySettings:
    (folder / "token").write_text("t")
    (folder / "properties.json").unlink(missing_ok=True)
    replace(properties, log_location=str(folder / "logs")).write(folder / "properties.json")
    named = str(folder / "properties.json")
    return GatewaySettings(run_dir=folder / "r", state_dir=folder, torchserve=named)


def test_who_finds_its_address_taken_leaves_it_to_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        properties = replace(PROPERTIES, grpc_management_port=taken.getsockname()[1])
        assert serve(settings_of(tmp_path, properties)) == Exit.LOCKED
    assert "another program listens on the address" in caplog.text


def test_settings_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    for changed, name in (
        ({"grpc_inference_address": "192.0.2.1"}, "grpc_inference_address: cannot listen on 192.0.2.1:0"),
        ({"grpc_management_address": "no.such.host."}, "grpc_management_address: cannot listen on"),
        ({"enable_grpc_ssl": True}, "private_key_file"),
    ):
        with pytest.raises(SettingsError, match=name):
            serve(settings_of(tmp_path, replace(PROPERTIES, **changed)))
    with pytest.raises(SettingsError, match="torchserve"):
        serve(GatewaySettings(run_dir=tmp_path))


def test_without_a_token_there_is_no_management(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TOKEN_S", 0.05)
    monkeypatch.delenv("HEADWAY_TOKEN", raising=False)
    settings = settings_of(tmp_path, PROPERTIES)
    (tmp_path / "token").unlink()
    with pytest.raises(SettingsError, match="no management token"):
        serve(settings)


def test_the_process_says_where_it_listens_and_ends_when_told_to(tmp_path: Path) -> None:
    """The token is there a moment later, as where the broker makes it meanwhile."""
    settings = settings_of(tmp_path, PROPERTIES)
    (tmp_path / "token").rename(tmp_path / "later")
    command = [sys.executable, "-m", "headway_gateway.torchserve.grpc", "--torchserve", settings.torchserve]
    command += ["--run-dir", str(settings.run_dir), "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            time.sleep(0.5)
            (tmp_path / "later").rename(tmp_path / "token")
            line = next(line for line in process.stderr if "listening" in line)
            assert "inference=127.0.0.1:" in line and "management=127.0.0.1:" in line
            process.send_signal(signal.SIGTERM)
            assert "stopped" in process.communicate(timeout=15)[1]
            assert process.returncode == Exit.OK
            assert (tmp_path / "logs" / "access_log.log").exists()
        finally:
            process.kill()
