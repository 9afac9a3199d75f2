"""The broker at TCP, with real sockets on loopback: right keys work, and nothing else does or costs
anything.

Where no worker joins and no key is revoked, tests share one broker (`standing`).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zmq
from click.testing import CliRunner

from headway import Client, keys, link
from headway.cli.main import main
from headway.errors import BrokerUnreachable, InvalidInput, SettingsError
from headway.exits import Exit
from headway.messages import (
    OK,
    Batches,
    BatchReply,
    Copy,
    Dismiss,
    Heartbeat,
    Join,
    Ping,
    Replies,
    Request,
    Requests,
    Result,
    Results,
    Welcome,
)
from headway.settings import ClientSettings, WorkerSettings
from headway.tensors import pack, unpack
from headway.wire import encode
from tests.broker.test_router import MODEL, Broker, Peer, until
from tests.ports import Ports

pytestmark = pytest.mark.system
QUIET_S = 1.0
READY = Copy("m", "1", "ready", "", {})
LOOK_S = 0.1
HASTY = f"""
from headway_broker import gate
gate.LOOK_S = {LOOK_S}
from headway_broker.__main__ import main
main()
"""


class TcpBroker(Broker):
    """A broker that listens at TCP too, with keys unless `plain`. A caller's and a worker's keys are
    allowed."""

    def __init__(self, folder: Path, plain: bool = False) -> None:
        super().__init__(folder)
        (self.store / "m" / "1" / "model.toml").write_text(MODEL + "copies = 2\n")
        self.plain = plain
        self.ports = Ports(2)
        sides = zip(("callers", "workers"), self.ports.addresses, strict=True)
        self.tcp = {side: f"tcp://{address}" for side, address in sides}
        self.keys_dir = folder / "keys"
        self.log = ""
        if not plain:
            keys.make(self.keys_dir, "broker", keys.BROKER)
            for name, role in (("caller1", keys.CALLER), ("worker1", keys.WORKER)):
                keys.allow(self.keys_dir, keys.make(self.keys_dir, name, role)[1])

    def options(self) -> list[str]:
        given = [f"--{side}-tcp={address}" for side, address in self.tcp.items()]
        return [*given, f"--keys-dir={self.keys_dir}", *(["--tcp-security=plain"] if self.plain else [])]

    def settings(self, **more: Any) -> ClientSettings:
        security = "plain" if self.plain else "curve"
        return ClientSettings(keys_dir=str(self.keys_dir), tcp_security=security, **more)

    def far(self, side: str = "callers", curve: keys.Curve | None = None, name: str = "") -> Peer:
        """A peer over TCP; with the keys that are allowed unless it brings its own."""
        role = keys.CALLER if side == "callers" else keys.WORKER
        settings = self.settings(key_name=name or ("caller1" if side == "callers" else "worker1"))
        curve = curve or keys.to_broker(settings, self.tcp[side], role)
        identity = b"far." + secrets.token_bytes(8)
        return Peer(link.dealer(self.context, self.tcp[side], identity, curve))

    def curve_of(self, name: str, role: str) -> keys.Curve:
        made = keys.to_broker(self.settings(key_name=name), self.tcp["callers"], role)
        assert made
        return made

    def stop(self) -> str:
        """What it logged."""
        process = self.processes[-1]
        process.terminate()
        _, log = process.communicate(timeout=10)
        assert process.returncode == Exit.OK, log
        return log


def nothing_comes_of(message: Any, *peers: Peer) -> bool:
    """Whether none of them hears anything when they say this, or try to, for as long as nobody listens."""
    poller = zmq.Poller()
    for peer in peers:
        poller.register(peer.socket, zmq.POLLOUT)
    end = time.monotonic() + QUIET_S
    while (left := end - time.monotonic()) > 0:
        for found, events in poller.poll(left * 1000):
            if events & zmq.POLLIN:
                return False
            with contextlib.suppress(zmq.Again):
                found.send(encode(message), zmq.DONTWAIT)
            poller.register(found, zmq.POLLIN)
            end = time.monotonic() + QUIET_S
    return True


@pytest.fixture
def broker() -> Iterator[TcpBroker]:
    yield from started()


@pytest.fixture(scope="module")
def standing() -> Iterator[TcpBroker]:
    yield from started()


@pytest.fixture
def hasty() -> Iterator[TcpBroker]:
    """Looks for revoked keys ten times a second, and not once."""
    yield from started(code=HASTY)


@pytest.fixture
def plain() -> Iterator[TcpBroker]:
    yield from started(plain=True)


def started(plain: bool = False, code: str = "") -> Iterator[TcpBroker]:
    with TemporaryDirectory(prefix="hw-") as folder:
        made = TcpBroker(Path(folder), plain)
        try:
            made.start(code, options=made.options())
            made.stats()  # it answers when it listens everywhere; its ipc sockets come before TCP
            yield made
        finally:
            made.close()
            made.ports.close()


def work_once(worker: Peer) -> list[Any]:
    """Answer the next batch with each request's own tensors; returns its requests."""
    [batch] = worker.hear(Batches).batches
    replies = [BatchReply(OK, bytes(request.tensors), {}) for request in batch.requests]
    worker.send(Results([Result(batch.id, 10, replies)]))
    return list(batch.requests)


@pytest.mark.parametrize("which", ["broker", "plain"])
def test_with_the_right_keys_a_request_goes_over_tcp_to_a_worker_over_tcp(which, request) -> None:
    broker = request.getfixturevalue(which)
    with broker.far("workers") as worker, broker.far() as caller:
        worker.send(Join("w", "host", 1, "cpu", [READY]))
        worker.hear(Welcome)
        caller.ask(1)
        work_once(worker)
        assert caller.hear(Replies).replies[0][:3] == (1, OK, b"t1")


@pytest.mark.parametrize("far_side", ["workers", "callers"])
def test_those_at_the_path_and_those_at_tcp_work_for_each_other(broker: TcpBroker, far_side: str) -> None:
    make = {side: broker.far if side == far_side else broker.peer for side in ("workers", "callers")}
    with make["workers"]("workers") as worker, make["callers"]("callers") as caller:
        worker.send(Join("w", "host", 1, "cpu", [READY]))
        worker.hear(Welcome)
        caller.ask(1)
        work_once(worker)
        assert caller.hear(Replies).replies[0][:3] == (1, OK, b"t1")


def test_one_identity_at_two_doors_is_two_peers(standing: TcpBroker) -> None:
    curve = standing.curve_of("caller1", keys.CALLER)
    near = Peer(link.dealer(standing.context, standing.address("callers"), b"same.12345678"))
    far = Peer(link.dealer(standing.context, standing.tcp["callers"], b"same.12345678", curve))
    with near, far:
        near.ask(7, model="nobody")
        assert near.hear(Replies).replies[0].id == 7
        far.ask(8, model="nobody")
        assert far.hear(Replies).replies[0].id == 8
        assert not near.socket.poll(100)


@pytest.mark.parametrize("side", ["callers", "workers"])
def test_without_a_key_that_is_allowed_there_nothing_is_delivered(broker: TcpBroker, side: str) -> None:
    role = keys.CALLER if side == "callers" else keys.WORKER
    other_side = broker.curve_of(*(("worker1", "worker") if side == "callers" else ("caller1", "caller")))
    keys.make(broker.keys_dir, "stranger", role)
    stranger = broker.curve_of("stranger", role)
    own = broker.curve_of("caller1" if side == "callers" else "worker1", role)
    wrong_broker = keys.Curve(own.public, own.secret, zmq.curve_keypair()[0])
    message = Ping() if side == "callers" else Join("w", "host", 1, "cpu", [READY])
    peers = [broker.far(side, curve) for curve in (other_side, stranger, wrong_broker)]
    peers.append(Peer(link.dealer(broker.context, broker.tcp[side], b"plain.12345678")))
    assert nothing_comes_of(message, *peers)
    for peer in peers:
        peer.socket.close()
    with broker.far(side) as good:
        good.send(message)
        good.hear(Heartbeat if side == "callers" else Welcome)
    assert broker.stats()["refused_messages"] == {"callers": 0, "workers": 0}
    log = broker.stop()
    assert f"side={side}" in log
    assert stranger.public.decode() in log
    assert log.count("key refused") == 2, "each key is told once, though it comes again"
    for curve in (stranger, own, other_side):
        assert curve.secret.decode() not in log


@pytest.mark.parametrize("side", ["callers", "workers"])
def test_http_and_other_garbage_deliver_nothing_and_the_next_peer_is_served(
    broker: TcpBroker, side: str
) -> None:
    host, port = broker.tcp[side].removeprefix("tcp://").split(":")
    texts = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x: y\r\n" * 200,
        b"",
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL" + bytes(48) + secrets.token_bytes(500),
        secrets.token_bytes(5000),
    ]
    kept = []
    for text in texts * 5:
        kept.append(socket.create_connection((host, int(port)), timeout=5))
        with contextlib.suppress(OSError):
            kept[-1].sendall(text)
    message = Ping() if side == "callers" else Join("w", "host", 1, "cpu", [READY])
    with broker.far(side) as good:
        good.send(message)
        good.hear(Heartbeat if side == "callers" else Welcome)
    for connection in kept:
        connection.close()
    assert broker.stats()["refused_messages"] == {"callers": 0, "workers": 0}


def test_garbage_at_plain_tcp_is_counted_and_costs_its_sender_alone(plain: TcpBroker) -> None:
    host, port = plain.tcp["callers"].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x: y\r\n" * 200)
        with plain.far() as caller:
            caller.send(Ping())
            caller.hear(Heartbeat)
    assert plain.stats()["refused_messages"]["callers"] < 1000
    assert "without keys, on this host alone" in plain.stop()


def test_a_key_is_good_as_soon_as_it_is_allowed_and_its_owner_need_not_start_again(
    standing: TcpBroker,
) -> None:
    _, public = keys.make(standing.keys_dir, "late", keys.CALLER)
    with standing.far(name="late") as peer:
        assert not peer.socket.poll(int(QUIET_S * 1000), zmq.POLLOUT)
        keys.allow(standing.keys_dir, public)
        peer.send(Ping())
        peer.hear(Heartbeat)


def test_a_revoked_worker_gets_nothing_more_and_its_requests_go_elsewhere(hasty: TcpBroker) -> None:
    with hasty.far("workers") as revoked, hasty.peer("workers") as other, hasty.peer() as caller:
        revoked.send(Join("far", "host", 1, "cpu", [READY]))
        revoked.hear(Welcome)
        caller.ask(1)
        [batch] = revoked.hear(Batches).batches
        keys.revoke(hasty.keys_dir, "worker1")
        other.send(Join("near", "host", 2, "cpu", [READY]))
        other.hear(Welcome)
        time.sleep(3 * LOOK_S)
        revoked.send(Results([Result(batch.id, 10, [BatchReply(OK, b"forged", {})])]))
        revoked.hear(Dismiss)
        work_once(other)
        assert caller.hear(Replies).replies[0][:3] == (1, OK, b"t1")
        assert nothing_comes_of(Join("far", "host", 1, "cpu", [READY]), revoked)


def test_a_revoked_caller_gets_no_answer_and_what_it_had_queued_is_dropped(broker: TcpBroker) -> None:
    with broker.far() as caller:
        caller.ask(1)
        caller.send(Ping())
        caller.hear(Heartbeat)
        assert broker.stats()["models"][0]["queue"] == 1
        keys.revoke(broker.keys_dir, "caller1")
        time.sleep(1.2)  # the broker looks once a second
        caller.send(Ping())
        until(lambda: broker.stats()["models"][0]["queue"] == 0)
        while caller.socket.poll(200):
            caller.socket.recv()
        assert nothing_comes_of(Ping(), caller)


def test_slots_of_a_revoked_worker_s_requests_are_free_again_though_it_stays_connected(
    hasty: TcpBroker,
) -> None:
    near_worker = hasty.peer("workers")
    with hasty.far("workers") as revoked, near_worker as other, Client(hasty.address("callers")) as client:
        revoked.send(Join("far", "host", 1, "cpu", [READY]))
        revoked.hear(Welcome)
        future = client.submit("m", {"x": large(1)})
        revoked.hear(Batches)
        keys.revoke(hasty.keys_dir, "worker1")
        other.send(Join("near", "host", 2, "cpu", [READY]))
        other.hear(Welcome)
        time.sleep(3 * LOOK_S)
        revoked.send(Ping())
        [batch] = other.hear(Batches).batches
        answer = BatchReply(OK, pack({"x": large(1)}), {})
        other.send(Results([Result(batch.id, 10, [answer])]))
        assert (future.result(10)["x"] == large(1)).all()
        until(lambda: client.lender.taken == 0)


def test_after_a_broker_was_killed_another_takes_its_ports_and_the_same_connections_reach_it(
    broker: TcpBroker,
) -> None:
    with broker.far() as caller:
        caller.send(Ping())
        old = caller.hear(Heartbeat).broker
        broker.processes[-1].kill()
        broker.processes[-1].wait(10)
        broker.start(options=broker.options())
        until(lambda: caller.socket.poll(100, zmq.POLLOUT) != 0)
        caller.send(Ping())
        assert caller.hear(Heartbeat).broker != old


# ---- tensors ----


def large(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, 602_112, np.uint8)


def test_a_tensor_in_shared_memory_reaches_a_worker_over_tcp_inside_the_message(broker: TcpBroker) -> None:
    with broker.far("workers") as far, Client(broker.address("callers")) as client:
        far.send(Join("far", "elsewhere", 1, "cpu", [READY]))
        far.hear(Welcome)
        futures = [client.submit("m", {"x": large(seed)}) for seed in range(3)]
        requests: list[Any] = []
        while len(requests) < 3:
            requests += work_once(far)
        assert all(request.options == {} for request in requests)
        assert all(len(request.tensors) > 602_112 for request in requests)
        for seed, future in enumerate(futures):
            assert (future.result(10)["x"] == large(seed)).all()


def test_a_reference_that_is_none_fails_alone_and_the_worker_gets_the_rest(broker: TcpBroker) -> None:
    slot = ["1-0123456789abcdef.seg", 0, 1, 64, 100]
    with broker.far("workers") as far, broker.peer() as caller:
        far.send(Join("far", "elsewhere", 1, "cpu", [READY]))
        far.hear(Welcome)
        caller.send(
            Requests(
                [
                    Request(1, "m", "", 9000, 0, 0, {"slot": slot}, b""),
                    Request(2, "m", "", 9000, 0, 0, {}, b"good"),
                    Request(3, "m", "", 9000, 0, 0, {"slot": "nonsense"}, b""),
                ]
            )
        )
        got: dict[int, Any] = {}
        answered = False
        while len(got) < 3:
            if not answered and far.socket.poll(50):
                answered = any(request.tensors == b"good" for request in work_once(far))
            if caller.socket.poll(50):
                got |= {reply.id: reply for reply in caller.hear(Replies).replies}
        assert (got[2].code, got[2].content) == (OK, b"good")
        assert [got[id].code for id in (1, 3)] == [InvalidInput.code] * 2
        assert "shared memory" in got[1].content


def test_a_caller_over_tcp_cannot_name_the_memory_of_callers_here(broker: TcpBroker) -> None:
    with (
        Client(broker.address("callers")) as owner,
        broker.peer("workers") as near,
        broker.far() as thief,
    ):
        near.send(Join("near", "here", 1, "cpu", [READY]))
        near.hear(Welcome)
        future = owner.submit("m", {"x": large(1)})
        [request] = work_once(near)
        options = {"slot": request.options["slot"], "reply_slot": [*request.options["slot"][:3], 1000]}
        thief.send(Requests([Request(1, "m", "", 9000, 0, 0, options, b"")]))
        [stolen] = work_once(near)
        assert stolen.options == {}
        assert stolen.tensors == b""
        future.exception(10)


def test_a_client_over_tcp_sends_its_tensors_inside_messages(broker: TcpBroker) -> None:
    far_client = Client(broker.tcp["callers"], settings=broker.settings())
    with broker.peer("workers") as near, far_client as client:
        near.send(Join("near", "here", 1, "cpu", [READY]))
        near.hear(Welcome)
        future = client.submit("m", {"x": large(5)})
        [request] = work_once(near)
        assert request.options == {}
        assert (unpack(request.tensors)["x"] == large(5)).all()
        assert (future.result(10)["x"] == large(5)).all()
        assert pack({"x": large(5)}) == request.tensors


def test_a_client_without_a_key_that_is_allowed_hears_that_nobody_answers(standing: TcpBroker) -> None:
    keys.make(standing.keys_dir, "stranger", keys.CALLER)
    settings = standing.settings(key_name="stranger")
    with Client(standing.tcp["callers"], settings=settings) as client, pytest.raises(BrokerUnreachable):
        client.models(timeout_s=1.0)


def test_the_command_line_asks_over_tcp_with_its_keys_and_says_what_is_missing(broker: TcpBroker) -> None:
    arguments = ["models", "--json", "--address", broker.tcp["callers"], "--keys-dir"]
    good = CliRunner().invoke(main, [*arguments, str(broker.keys_dir)])
    assert (good.exit_code, json.loads(good.output)[0]["name"]) == (0, "m")
    bad = CliRunner().invoke(main, [*arguments, str(broker.keys_dir / "none")])
    assert bad.exit_code == Exit.CONFIG
    assert "keys_dir: there is no key of a caller" in bad.stderr


# ---- what does not start ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--callers-tcp=tcp://127.0.0.1"], "callers_tcp"),
        (["--workers-tcp=127.0.0.1:80"], "workers_tcp"),
        (["--callers-tcp=tcp://0.0.0.0:7401", "--keys-dir=/nonexistent"], "headway keys make"),
        (["--tcp-security=none"], "tcp_security"),
        (["--callers-tcp=tcp://127.0.0.1:{busy}", "--tcp-security=plain"], "callers_tcp"),
    ],
)
def test_a_broker_that_cannot_listen_as_it_was_told_says_which_setting_and_leaves_nothing(options, said):
    with TemporaryDirectory(prefix="hw-") as folder, socket.create_server(("127.0.0.1", 0)) as busy:
        broker = Broker(Path(folder))
        try:
            options = [option.format(busy=busy.getsockname()[1]) for option in options]
            process = broker.start(wait=False, options=options)
            _, log = process.communicate(timeout=10)
            assert process.returncode == Exit.CONFIG
            assert said in log
            assert "Traceback" not in log
            assert not broker.run_dir.exists() or list(broker.run_dir.iterdir()) == []
        finally:
            broker.close()


def test_a_worker_without_keys_is_refused_before_it_connects() -> None:
    with TemporaryDirectory(prefix="hw-") as folder:
        settings = WorkerSettings(broker="tcp://10.1.2.3:7402", keys_dir=folder)
        with pytest.raises(SettingsError, match="no key of a worker"):
            keys.to_broker(settings, settings.workers_address, keys.WORKER)
