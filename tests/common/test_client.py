"""The blocking client, against a broker of the tests' own, over real sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from headway import client as client_module
from headway import inbox
from headway.body import Body
from headway.client import Client
from headway.errors import (
    ERROR_OF_CODE,
    BrokerUnreachable,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelError,
    QueueFull,
    RemoteProtocolError,
    SettingsError,
    TooLarge,
    Unauthorized,
    UnknownModel,
    WorkerLost,
)
from headway.messages import BATCH_ROWS_MAX, Bye, Ping, Requests
from headway.steps import Step, step_of

X = {"x": np.arange(16, dtype=np.float32)}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def client(broker):
    with Client(broker.address, timeout_s=10) as opened:
        yield opened


# ---- replies in pieces


def test_stream_has_the_pieces_and_then_the_rest(client, broker):
    bodies = list(client.stream("pieces", Body(b"abcd", "text/plain"), version="2", sticky="k"))
    assert bodies == [Body(data, "x/y") for data in (b"a", b"b", b"c", b"d")]
    (request,) = broker.requests()
    assert (request.version, request.options["sticky"], request.options["stream"]) == ("2", "k", "true")


@pytest.mark.parametrize("data", [b"abc", b""])
def test_an_empty_rest_is_given_only_where_nothing_came_before(client, data):
    assert [body.data for body in client.stream("pieces", data)] == ([b"a", b"b", b"c"] if data else [b""])


def test_a_model_without_pieces_is_streamed_as_one(client):
    assert list(client.stream("echo", Body(b"abc", "a/b"))) == [Body(b"abc", "a/b")]


def test_predict_asks_for_no_pieces(client, broker):
    assert client.predict("pieces", b"abcd").data == b"abcd"
    assert "stream" not in broker.requests()[0].options


def test_an_error_comes_after_the_pieces(client):
    bodies = client.stream(f"pieces-{ModelError.code}", b"abcd")
    assert [next(bodies).data for _ in range(3)] == [b"a", b"b", b"c"]
    with pytest.raises(ModelError, match="on demand"):
        next(bodies)


def test_leaving_a_stream_withdraws_it(client, broker):
    bodies = client.stream("begin", b"x")
    assert next(bodies).data == b"begun"
    bodies.close()
    broker.wait_for(broker.cancelled)


def test_a_stream_that_nobody_takes_ends_in_an_error_and_not_in_all_of_memory(client):
    bodies = client.stream("flood", b"abcd")
    taken = [next(bodies)]
    give_up = time.monotonic() + 10
    while len(client._pump._calls) and time.monotonic() < give_up:  # until all has come
        time.sleep(0.01)
    with pytest.raises(QueueFull, match="wait to be taken"):
        taken += bodies
    assert 60 < len(taken) < 80


def test_a_stream_that_has_begun_does_not_survive_its_broker(client, broker):
    bodies = client.stream("begin", b"x")
    assert next(bodies).data == b"begun"
    broker.restart()
    with pytest.raises(WorkerLost, match="started anew"):
        next(bodies)
    assert len(broker.requests()) == 1


def test_a_stream_of_a_client_that_is_closed_ends(client):
    bodies = client.stream("begin", b"x")
    next(bodies)
    client.close()
    with pytest.raises(BrokerUnreachable):
        next(bodies)


# ---- asking


def test_infer_returns_the_tensors_of_the_reply(client, broker):
    inputs = {"a": np.ones((2, 3)), "b": np.array(["ä"]), "c": np.zeros(0, bool)}
    outputs = client.infer("echo", inputs, version="2")
    assert list(outputs) == ["a", "b", "c"]
    assert (outputs["a"] == 1).all()
    assert outputs["b"].tolist() == ["ä".encode()]
    (request,) = {r.id: r for r in broker.requests()}.values()
    assert (request.model, request.version, request.rows, request.options) == ("echo", "2", 0, {})
    assert 9000 < request.timeout_ms <= 10_000


def test_outputs_are_read_only_views(client):
    assert not client.infer("echo", X)["x"].flags.writeable


def test_a_batched_request_says_its_rows(client, broker):
    client.infer("echo", {"x": np.zeros((5, 2)), "y": [1, 2, 3, 4, 5]}, batched=True)
    assert broker.requests()[0].rows == 5


def test_predict_returns_the_body_of_the_reply(client):
    assert client.predict("echo", b"raw") == Body(b"raw")
    assert client.predict("echo", Body(b"{}", "application/json")) == Body(b"{}", "application/json")
    assert client.predict("echo", b"").data == b""


def test_submit_returns_a_future_of_tensors_or_of_a_body(client):
    assert (client.submit("echo", X).result(5)["x"] == X["x"]).all()
    assert client.submit("echo", Body(b"raw")).result(5) == Body(b"raw")


def test_a_command_is_answered_or_its_error_raised(client):
    assert client.command("scale", {"model": "echo", "min": 2}, "t") == {
        "verb": "scale",
        "model": "echo",
        "min": 2,
    }
    for token in ("wrong", "x" * 1000):
        with pytest.raises(Unauthorized):
            client.command("scale", {}, token)


def test_models_and_stats_are_the_brokers_answers(client):
    assert client.models() == [{"name": "echo"}]
    assert client.stats() == {"n": 1}


@pytest.mark.parametrize("answer", [{}, {"models": None}, {"models": {}}])
def test_an_answer_without_models_is_a_protocol_error(client, broker, answer):
    broker.answers["models"] = answer
    with pytest.raises(RemoteProtocolError):
        client.models()


@pytest.mark.parametrize("code", ERROR_OF_CODE)
def test_every_error_of_the_wire_is_raised_as_its_class(client, code):
    with pytest.raises(ERROR_OF_CODE[code], match="on demand") as caught:
        client.infer(f"error-{code}", X)
    assert caught.value.retry_after_s == 0.25


def test_a_step_travels_with_every_kind_of_request(client, broker):
    step = Step("s", starts=True)
    client.infer("echo", X, step=step)
    client.predict("echo", b"x", step=step)
    client.submit("echo", X, step=step).result(5)
    client.submit("echo", Body(b"x"), step=step).result(5)
    assert list(client.stream("echo", b"x", step=step))
    assert [step_of(r.options) for r in broker.requests() if not r.attempt] == [step] * 5
    with pytest.raises(InvalidInput, match="1 to 256 characters"):
        client.infer("echo", X, step=Step(""))


def test_a_sticky_key_travels_with_every_kind_of_request(client, broker):
    client.infer("echo", X, sticky="user-7")
    client.predict("echo", b"x", sticky="user-7")
    client.submit("echo", X, sticky="user-7").result(5)
    client.submit("echo", Body(b"x"), sticky="user-7").result(5)
    client.infer("echo", X)
    said = [r.options.get("sticky") for r in broker.requests() if not r.attempt]  # some may be sent again
    assert said == ["user-7"] * 4 + [None]
    with pytest.raises(InvalidInput, match="128"):
        client.infer("echo", X, sticky="k" * 129)


# ---- what would hurt others is refused here


@pytest.mark.parametrize("model", ["m" * 129, "\ud800", "a\0b", None, 3, b"echo"])
def test_a_name_that_the_wire_does_not_carry_is_refused(client, model):
    with pytest.raises(UnknownModel):
        client.infer(model, X)
    with pytest.raises(UnknownModel):
        client.submit("echo", X, version=model)


def test_more_rows_than_the_wire_counts_are_refused(client):
    with pytest.raises(TooLarge, match=str(BATCH_ROWS_MAX)):
        client.infer("echo", {"x": np.zeros(BATCH_ROWS_MAX + 1, bool)}, batched=True)


def test_options_that_are_too_large_are_refused(client):
    with pytest.raises(TooLarge):
        client.predict("echo", Body(b"", "x" * 100_000))


def test_a_refused_request_leaves_no_trace(client, broker):
    for inputs in [{"x": [[1], [1, 2]]}, {"x": object()}, {"\ud800": 1}]:
        with pytest.raises(InvalidInput):
            client.infer("echo", inputs)
    assert client.infer("echo", X)
    assert {r.model for r in broker.requests()} == {"echo"}


def test_a_timeout_that_is_no_number_is_refused(client):
    with pytest.raises(InvalidInput, match="timeout_s"):
        client.infer("echo", X, timeout_s=float("nan"))


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300, 10**9])
def test_a_timeout_may_be_endless(client, timeout_s):
    assert client.infer("echo", X, timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", [0, -1, float("-inf")])
def test_a_timeout_that_is_over_is_exceeded_at_once(client, timeout_s):
    with pytest.raises(DeadlineExceeded):
        client.infer("echo", X, timeout_s=timeout_s)


def test_an_address_that_is_none_is_refused_when_opening():
    before = set(threading.enumerate()), open_files()
    for address in ["nonsense", "ipc://" + "x" * 200, "tcp://here:port"]:
        with pytest.raises(SettingsError, match="address"):
            Client(address)
    assert (set(threading.enumerate()), open_files()) == before


# ---- cancelling


def test_cancelling_a_future_withdraws_the_request(client, broker):
    future = client.submit("hold", X)
    broker.wait_for(broker.requests)
    assert future.cancel()
    broker.wait_for(broker.cancelled)
    assert broker.cancelled() == {broker.requests()[0].id}
    with pytest.raises(CancelledError):
        future.result(1)


def test_those_who_wait_for_several_futures_are_told_of_a_cancelled_one(client):
    futures = [client.submit("hold", X), client.submit("echo", X)]
    futures[0].cancel()
    assert wait(futures, timeout=5).not_done == set()


def test_cancelling_twice_or_too_late_does_nothing(client, broker):
    future = client.submit("hold", X)
    assert future.cancel()
    assert future.cancel()
    done = client.submit("echo", X)
    done.result(5)
    assert not done.cancel()
    assert client.infer("echo", X)
    assert len(broker.cancelled()) <= 1


def test_cancelling_while_replies_arrive_breaks_nothing(client):
    futures = [client.submit("echo", X) for _ in range(500)]
    cancelled = [future.cancel() for future in futures]
    assert wait(futures, timeout=5).not_done == set()
    assert [future.cancelled() for future in futures] == cancelled
    assert client.infer("echo", X)


def test_a_callback_that_raises_or_closes_the_client_harms_nobody(broker, caplog):
    client = Client(broker.address)
    client.submit("echo", X).add_done_callback(lambda future: 1 / 0)
    closed = threading.Event()

    def close(future: Future[object]) -> None:
        client.close()
        closed.set()

    client.submit("echo", X).add_done_callback(close)
    assert closed.wait(5)
    client._pump.thread.join(5)
    assert not client._pump.thread.is_alive()
    with pytest.raises(BrokerUnreachable, match="closed"):
        client.infer("echo", X)


# ---- many at once


def test_many_threads_may_share_a_client(client):
    def ask(i: int) -> bool:
        asked = range(i * 100, i * 100 + 20)
        return [int(client.infer("echo", {"x": np.array(n)})["x"]) for n in asked] == list(asked)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))


def test_requests_submitted_together_leave_together(absent):
    with Client(absent.address) as client:
        futures = [client.submit("echo", {"x": np.array(i)}) for i in range(300)]
        absent.start()
        assert [int(f.result(5)["x"]) for f in futures] == list(range(300))
        assert len([r for m in absent.seen(Requests)[:2] for r in m.requests]) >= 300


def test_requests_submitted_in_a_row_share_messages(client, broker):
    client.infer("echo", X)
    futures = [client.submit("echo", {"x": np.array(i)}) for i in range(300)]
    assert [int(f.result(5)["x"]) for f in futures] == list(range(300))
    assert len(broker.seen(Requests)) < 150


# ---- the broker's life


def test_a_restart_of_the_broker_is_a_pause(client, broker):
    client.infer("echo", X)
    future = client.submit("hold", X)
    broker.wait_for(lambda: any(r.model == "hold" for r in broker.requests()))
    broker.stop()
    meanwhile = client.submit("echo", {"x": np.array(7)})
    broker.start()
    assert int(meanwhile.result(5)["x"]) == 7
    broker.wait_for(lambda: [r.attempt for r in broker.requests() if r.model == "hold" and r.attempt])
    assert not future.done()


def test_what_is_asked_first_after_a_restart_is_asked_once(client, broker):
    client.infer("echo", X)
    broker.restart()
    client.submit("hold", X)
    broker.wait_for(lambda: any(r.model == "hold" for r in broker.requests()))
    pings = len(broker.seen(Ping))
    broker.wait_for(lambda: len(broker.seen(Ping)) > pings + 1)
    assert [r.attempt for r in broker.requests() if r.model == "hold"] == [0]


def test_frames_that_are_no_messages_are_passed_over(client, caplog):
    assert client.infer("noise", X)["x"].tolist() == X["x"].tolist()
    assert [r.message for r in caplog.records].count("message refused") >= 4


@pytest.mark.parametrize("model", ["garbage", "text"])
def test_a_reply_that_cannot_be_read_is_a_protocol_error_and_not_the_callers_fault(client, model):
    with pytest.raises(RemoteProtocolError):
        client.infer(model, X)
    with pytest.raises(RemoteProtocolError):
        client.submit(model, X).result(5)
    assert client.infer("echo", X)


def test_without_a_broker_a_request_ends_within_its_timeout(absent):
    with Client(absent.address) as client:
        start = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            client.infer("echo", X, timeout_s=0.2)
        assert 0.15 < time.monotonic() - start < 1


def test_a_broker_that_does_not_answer_exceeds_the_deadline(client, broker):
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.infer("hold", X, timeout_s=0.1)
    assert time.monotonic() - start < 1.5
    broker.wait_for(broker.cancelled)


def test_a_client_may_be_opened_before_its_broker(absent):
    with Client(absent.address) as client:
        future = client.submit("echo", X)
        absent.start()
        assert future.result(5)


# ---- defects


def test_a_defect_in_the_thread_fails_what_is_open_and_no_more(client, broker, monkeypatch, caplog):
    held = client.submit("hold", X)
    broker.wait_for(broker.requests)
    monkeypatch.setattr(inbox, "decode", lambda frame: 1 / 0)
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        client.infer("echo", X)
    with pytest.raises(InternalError):
        held.result(5)
    assert any(r.exc_info for r in caplog.records)
    monkeypatch.undo()
    assert client.infer("echo", X)


def test_a_defect_in_reading_one_reply_fails_that_one(client, monkeypatch):
    monkeypatch.setattr(client_module, "tensors_of", lambda reply: 1 / 0)
    bad, good = client.submit("echo", X), client.submit("echo", Body(b"raw"))
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        bad.result(5)
    assert good.result(5) == Body(b"raw")


# ---- closing


def test_closing_settles_what_is_open_says_bye_and_leaves_nothing(broker):
    with Client(broker.address) as first:  # what is made once per process is made now
        first.infer("echo", X)
    threads, fds = set(threading.enumerate()), open_files()
    client = Client(broker.address)
    held = client.submit("hold", X)
    broker.wait_for(lambda: any(r.model == "hold" for r in broker.requests()))
    client.close()
    with pytest.raises(BrokerUnreachable, match="closed"):
        held.result(0)
    broker.wait_for(lambda: len(broker.seen(Bye)) == 2)
    assert set(threading.enumerate()) == threads
    assert open_files() <= fds + 1  # the broker may not have noticed yet


def test_a_closed_client_refuses_and_may_be_closed_again(client):
    client.close()
    client.close()
    for ask in (lambda: client.infer("echo", X), lambda: client.submit("echo", X), client.stats):
        with pytest.raises(BrokerUnreachable, match="closed"):
            ask()


def test_what_was_submitted_just_before_closing_is_settled(broker):
    for _ in range(10):
        client = Client(broker.address)
        futures = [client.submit("hold", X) for _ in range(20)]
        client.close()
        assert all(f.done() for f in futures)


def test_threads_that_submit_while_the_client_closes_are_all_answered(broker):
    client = Client(broker.address)
    started = threading.Barrier(5)
    outcomes = []

    def flood() -> None:
        started.wait()
        try:
            while True:
                outcomes.append(client.submit("echo", X))
        except BrokerUnreachable:
            pass

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    outcomes_before = len(outcomes)
    while len(outcomes) < outcomes_before + 100:
        pass
    client.close()
    for thread in threads:
        thread.join(5)
    assert wait(outcomes, timeout=5).not_done == set()


def test_cancelling_after_closing_does_nothing(client):
    future = client.submit("hold", X)
    client.close()
    assert not future.cancel()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_is_refused_after_a_fork(client):
    held = client.submit("hold", X)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            held.cancel()
            client.infer("echo", X)
        except BrokerUnreachable as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            client.close()
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert client.infer("echo", X)
    assert not held.done()


@pytest.mark.parametrize("close", ["client.close()", ""])
def test_a_program_ends_at_once_and_without_a_warning(broker, close):
    program = (
        "from headway import Client; import numpy as np;"
        f"client = Client({broker.address!r}); client.infer('echo', {{'x': np.ones(3)}});"
        f"held = client.submit('hold', {{'x': np.ones(3)}}); {close}"
    )
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=20, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
