"""The rig itself: what it would overlook, the whole set could not find."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.torchserve import rpc
from tests.torchserve.compare import differences
from tests.torchserve.intended import table
from tests.torchserve.record import GROUPS
from tests.torchserve.replay import group_file
from tests.torchserve.wire import Browser, Closed, Connection

CASES = [(group, case) for group in GROUPS for case in group_file(group)["cases"]]
STEP = {"port": "inference"}
SEEN = {"status": 200, "reason": "", "headers": {"a": "1"}, "text": "x 0.501"}


def test_every_case_was_recorded_from_a_real_server_and_says_how() -> None:
    for group, case in CASES:
        recorded = case["recorded"]
        assert recorded["torchserve"] == "0.12.0"
        assert recorded["how"].endswith(f" {group}/{case['id']}")
        assert len(case["expected"]) == len(case["steps"]), case["id"]


def test_there_are_many_cases_and_each_has_a_name_of_its_own() -> None:
    assert len({(group, case["id"]) for group, case in CASES}) == len(CASES) >= 150


def test_where_headway_is_meant_to_differ_it_is_said_why_and_it_does() -> None:
    for _, case in CASES:
        if "headway" in case:
            assert case["headway"]["why"]
            assert case["headway"]["expected"] != case["expected"]


def test_the_documentation_has_the_table_of_intended_differences() -> None:
    document = Path(__file__).parents[2] / "docs" / "torchserve-differential.md"
    assert document.read_text().endswith("\n".join(table()) + "\n")


def test_no_recording_names_the_machine_that_made_it() -> None:
    for _, case in CASES:
        assert "/tmp/ts-" not in str(case["expected"]), case["id"]
        assert socket.gethostname() not in str(case["expected"]).split(), case["id"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": 201},
        {"reason": "OK"},
        {"headers": {"a": "2"}},
        {"headers": {}},
        {"headers": {"a": "1", "b": "1"}},
        {"text": "y 0.501"},
        {"text": "x 0.502"},
        {"lines": ["more"]},
    ],
)
def test_a_reply_that_is_other_in_one_thing_is_a_difference(change: dict[str, object]) -> None:
    assert differences(STEP, SEEN, {**SEEN, **change})


def test_date_and_server_are_no_difference() -> None:
    assert not differences(STEP, SEEN, {**SEEN, "headers": {"a": "1", "date": "now", "server": "x"}})


def test_fractions_may_differ_a_little_where_the_step_says_so() -> None:
    close = {**STEP, "close": 0.01}
    assert not differences(close, SEEN, {**SEEN, "text": "x 0.509"})
    assert differences(close, SEEN, {**SEEN, "text": "x 0.52"})
    assert differences(close, SEEN, {**SEEN, "text": "z 0.501"})


def test_a_request_among_several_at_once_that_differs_is_found() -> None:
    step, one = {"together": [STEP, STEP]}, {"together": [SEEN, SEEN]}
    assert not differences(step, one, one)
    assert differences(step, one, {"together": [SEEN, {**SEEN, "status": 503}]})


def test_messages_are_packed_as_protobuf_wants_and_read_back() -> None:
    # google.protobuf's own bytes of PredictionsRequest{model_name: "m", input: {"data": "x"}}
    assert rpc.packed(rpc.PREDICTIONS, {"model_name": "m", "input": {"data": "x"}}).hex() == (
        "0a016d" + "1a09" + "0a0464617461" + "120178"
    )
    message = {
        "model_name": "m",
        "inputs": [{"name": "x", "shape": [2, 300], "contents": {"fp32_contents": [0.5, -1.0]}}],
    }
    assert rpc.unpacked(rpc.OPEN_INFER, rpc.packed(rpc.OPEN_INFER, message)) == message
    assert rpc.unpacked(rpc.SCALE, rpc.packed(rpc.SCALE, {"max_worker": -1})) == {"max_worker": (1 << 64) - 1}


class Canned:
    """A server that answers each connection with the given bytes and ends it."""

    def __init__(self, *replies: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(replies,))
        self._thread.start()

    def _serve(self, replies: tuple[bytes, ...]) -> None:
        with self._listener:
            for reply in replies:
                peer, _ = self._listener.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(reply)

    def join(self) -> None:
        self._thread.join()


def test_chunks_an_empty_phrase_and_header_values_are_seen_as_they_came() -> None:
    served = Canned(
        b"HTTP/1.1 200 \r\nX-A: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    )
    with Connection(served.port) as connection:
        reply = connection.exchange("GET", "/", [], b"")
    served.join()
    assert (reply.status, reply.reason, reply.chunks) == (200, "", [b"ab", b"c"])
    assert reply.header("x-a") == "b"


def test_a_reply_that_is_cut_off_is_an_error() -> None:
    served = Canned(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
    with Connection(served.port) as connection, pytest.raises(Closed):
        connection.exchange("GET", "/", [], b"")
    served.join()


def test_a_kept_connection_that_ended_meanwhile_is_replaced_once() -> None:
    served = Canned(*[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"] * 2)
    browser = Browser()
    assert [browser.ask(served.port, "GET", "/", [], b"").body for _ in range(2)] == [b"a", b"a"]
    browser.close()
    served.join()


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        browser = Browser(timeout_s=0.05)
        with pytest.raises(TimeoutError):
            browser.ask(silent.getsockname()[1], "GET", "/", [], b"")
        browser.close()
