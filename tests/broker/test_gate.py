"""Who may come over TCP: real handshakes with real key files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from headway import keys, link
from headway.keys import Curve
from headway_broker.gate import Gate, _List

POLL_MS = 5000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, role in (("broker", keys.BROKER), ("w", keys.WORKER), ("c", keys.CALLER)):
        keys.make(tmp_path, name, role)
    keys.allow(tmp_path, tmp_path / "w.pub")
    keys.allow(tmp_path, tmp_path / "c.pub")
    return tmp_path


def pair(folder: Path, name: str) -> Curve:
    public, secret = keys.load_certificate(folder / f"{name}.key")
    broker, _ = keys.load_certificate(folder / "broker.pub")
    assert secret
    return Curve(public, secret, broker)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_an_open_gate_lets_in_whom_the_folder_names_and_says_who_spoke(folder: Path, context) -> None:
    gate = Gate(context, {"workers": folder / "workers"})
    gate.open()
    try:
        router = link.router(context, "tcp://127.0.0.1:*", pair(folder, "broker"), "workers")
        address = router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        allowed = link.dealer(context, address, b"a.1", pair(folder, "w"))
        other = link.dealer(context, address, b"b.1", pair(folder, "c"))
        assert allowed.poll(POLL_MS, zmq.POLLOUT)
        allowed.send(b"hello")
        assert router.poll(POLL_MS)
        assert link.receive_known(router) == ([b"a.1", b"hello"], pair(folder, "w").public)
        assert not other.poll(500, zmq.POLLOUT)
        assert gate.refused > 0
        assert gate.knows("workers", pair(folder, "w").public)
        assert not gate.knows("workers", pair(folder, "c").public)
        assert not gate.knows("workers", b"")
        assert link.receive_known(router) is None
    finally:
        gate.close()


def test_without_a_gate_nobody_comes_through_a_door_with_keys(folder: Path, context) -> None:
    """libzmq on its own would let everybody in who knows the broker's public key."""
    router = link.router(context, "tcp://127.0.0.1:*", pair(folder, "broker"), "workers")
    address = router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
    peer = link.dealer(context, address, b"a.1", pair(folder, "w"))
    assert not peer.poll(700, zmq.POLLOUT)


def test_a_removed_key_is_found_out_at_the_next_look_and_not_before_it_is_due(folder: Path, context) -> None:
    gate = Gate(context, {"workers": folder / "workers"})
    public = pair(folder, "w").public
    gate.look(100.0)
    assert gate.knows("workers", public)
    keys.revoke(folder, "w")
    gate.look(100.5)
    assert gate.knows("workers", public)
    gate.look(101.0)
    assert not gate.knows("workers", public)


def test_a_refused_key_is_counted_each_time_and_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = zmq.curve_keypair()[0]
    one = _List("workers", folder / "workers")
    with caplog.at_level(logging.WARNING, logger="headway.broker"):
        assert [one.callback("workers", stranger) for _ in range(3)] == [False] * 3
        assert one.callback("workers", pair(folder, "w").public)
    assert one.refused == 3
    assert len(caplog.records) == 1


def test_a_defect_in_looking_up_a_key_refuses_it_and_does_not_end_the_thread(
    folder: Path, monkeypatch
) -> None:
    one = _List("workers", folder / "workers")
    monkeypatch.setattr(one, "look", lambda: 1 / 0)
    assert one.callback("workers", pair(folder, "w").public) is False


def test_a_file_that_is_no_key_is_told_and_the_others_are_good(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "workers" / "bad.pub").write_text("nothing")
    one = _List("workers", folder / "workers")
    with caplog.at_level(logging.WARNING, logger="headway.broker"):
        one.look()
    assert "key file ignored" in caplog.text
    assert one.name_of(pair(folder, "w").public) == "w"
