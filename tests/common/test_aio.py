"""The asyncio client, against a broker of the tests' own, over real sockets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import uvloop

from headway import aio, inbox
from headway.aio import SEND_AT, AsyncClient
from headway.body import Body
from headway.errors import (
    BrokerUnreachable,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    QueueFull,
    RemoteProtocolError,
    SettingsError,
    UnknownModel,
    WorkerLost,
)
from headway.messages import Bye, Ping, Requests
from headway.outgoing import ask_body, ask_tensors
from headway.steps import Step

X = {"x": np.arange(16, dtype=np.float32)}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def use(broker, steps, **options):
    """Run a coroutine function with an open client. No exception may go by unseen."""
    unseen = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        async with AsyncClient(broker.address, **{"timeout_s": 10, **options}) as client:
            await steps(client)

    asyncio.run(run())
    assert unseen == []


async def until(true, timeout_s=5.0):
    """Let the loop run until it is true."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


# ---- replies in pieces


def test_stream_and_replies_have_the_pieces_and_then_the_rest(broker):
    async def steps(client):
        bodies = [body.data async for body in client.stream("pieces", b"abcd")]
        assert bodies == [b"a", b"b", b"c", b"d"]
        assert [body.data async for body in client.stream("pieces", b"abc")] == [b"a", b"b", b"c"]
        assert [body.data async for body in client.stream("echo", b"abc")] == [b"abc"]
        replies = [reply async for reply in client.replies(ask_body("pieces", b"abc"))]
        assert [(r.content, r.meta.get("more")) for r in replies] == [
            (b"a", 1), (b"b", 1), (b"c", 1), (b"", None),
        ]  # fmt: skip

    use(broker, steps)


def test_start_tells_of_each_piece_and_then_of_the_end(broker):
    async def steps(client):
        told = []
        asked = ask_body("pieces", b"abcd")
        client.start(asked, 5, lambda o: told.append(("done", o.content)), lambda r: told.append(r.content))
        await until(lambda: len(told) == 4)
        assert told == [b"a", b"b", b"c", ("done", b"d")]
        client.start(asked, 5, lambda outcome: told.append(outcome.content))
        await until(lambda: len(told) == 5)
        assert told[4] == b"abcd", "who says nothing of pieces gets none"

    use(broker, steps)


def test_what_is_abandoned_from_within_a_piece_gets_no_more(broker):
    async def steps(client):
        told = []
        asked = ask_body("pieces", b"abcd")

        def piece(reply):
            told.append(reply.content)
            client.abandon(id)

        id = client.start(asked, 5, told.append, piece)
        await until(lambda: told)
        await client.infer("echo", X)
        assert told == [b"a"]

    use(broker, steps)


def test_leaving_replies_withdraws_the_request(broker):
    async def steps(client):
        async with aclosing(client.replies(ask_body("begin", b"x"))) as replies:
            async for reply in replies:
                assert reply.content == b"begun"
                break
        await until(broker.cancelled)
        waiting = asyncio.create_task(anext(client.stream("hold", b"x")))
        await until(lambda: len(broker.requests()) == 2)
        waiting.cancel()
        await until(lambda: len(broker.cancelled()) == 2)

    use(broker, steps)


def test_a_stream_that_has_begun_does_not_survive_its_broker(broker):
    async def steps(client):
        bodies = client.stream("begin", b"x")
        assert (await anext(bodies)).data == b"begun"
        broker.restart()
        with pytest.raises(WorkerLost, match="started anew"):
            await anext(bodies)

    use(broker, steps)


# ---- asking


def test_a_request_comes_back_as_it_does_from_the_blocking_client(broker):
    async def steps(client):
        assert ((await client.infer("echo", X))["x"] == X["x"]).all()
        assert await client.predict("echo", Body(b"{}", "application/json")) == Body(
            b"{}", "application/json"
        )
        assert (await client.predict("echo", b"")).data == b""
        reply = await client.reply(ask_tensors("echo", X))
        assert reply.content == ask_tensors("echo", X).tensors
        assert await client.models() == [{"name": "echo"}]
        assert await client.stats() == {"n": 1}
        assert await client.command("drain", {"worker": "w"}, "t") == {"verb": "drain", "worker": "w"}

    use(broker, steps)


def test_a_step_travels_with_the_request(broker):
    async def steps(client):
        await client.infer("echo", {"x": np.ones(1)}, step=Step("s"))
        await client.predict("echo", b"x", step=Step("s"))
        assert [piece async for piece in client.stream("echo", b"x", step=Step("s"))]

    use(broker, steps)
    assert [r.options.get("sequence") for r in broker.requests() if not r.attempt] == ["s"] * 3


def test_a_sticky_key_travels_with_the_request(broker):
    async def steps(client):
        await client.infer("echo", {"x": np.ones(1)}, sticky="user-7")
        await client.predict("echo", b"x", sticky="user-7")

    use(broker, steps)
    assert [r.options.get("sticky") for r in broker.requests() if not r.attempt] == ["user-7"] * 2


def test_errors_are_raised_and_nothing_else_suffers(broker):
    async def steps(client):
        with pytest.raises(QueueFull, match="on demand") as caught:
            await client.infer("error-20", X)
        assert caught.value.retry_after_s == 0.25
        for model in ("garbage", "text"):
            with pytest.raises(RemoteProtocolError):
                await client.infer(model, X)
        with pytest.raises(UnknownModel):
            await client.infer("m" * 129, X)
        with pytest.raises(InvalidInput):
            await client.infer("echo", X, timeout_s=float("nan"))
        broker.answers["models"] = {}
        with pytest.raises(RemoteProtocolError):
            await client.models()
        assert await client.infer("echo", X, timeout_s=float("inf"))

    use(broker, steps)


def test_frames_that_are_no_messages_are_passed_over(broker, caplog):
    async def steps(client):
        assert await client.infer("noise", X)

    use(broker, steps)
    assert [r.message for r in caplog.records].count("message refused") >= 4


def sent_after(broker, first):
    """The messages with requests after the first one, as they were first sent: the first heartbeat may come
    late, and makes a client send again what has no answer yet."""
    return [m for m in broker.seen(Requests) if m.requests[-1].id != first and not m.requests[-1].attempt]


def test_requests_of_one_turn_of_the_loop_leave_in_one_message(broker):
    async def steps(client):
        await client.infer("echo", X)
        first = broker.requests()[0].id
        await asyncio.gather(*(client.infer("echo", {"x": np.array(i)}) for i in range(aio.SEND_AT - 1)))
        assert len(sent_after(broker, first)) == 1

    use(broker, steps)


def test_many_requests_of_one_turn_leave_while_it_lasts(broker):
    """So that who works for the first ones need not wait for the last."""

    async def steps(client):
        await client.infer("echo", X)
        first = broker.requests()[0].id
        asked = [asyncio.ensure_future(client.infer("echo", X)) for _ in range(3 * aio.SEND_AT)]
        await asyncio.gather(*asked)
        assert [len(m.requests) for m in sent_after(broker, first)] == [aio.SEND_AT] * 3

    use(broker, steps)


def test_a_timer_that_is_almost_due_is_no_defect_under_uvloop(broker, monkeypatch):
    async def steps():
        async with AsyncClient(broker.address) as client:
            with monkeypatch.context() as patched:
                patched.setattr(client._calls, "next_wake", lambda: time.monotonic() + 0.0002)
                client._arm()
                client._arm()
            assert (await client.infer("echo", X))["x"].tolist() == X["x"].tolist()

    uvloop.run(steps())


def test_two_thousand_requests_at_once_are_answered_without_a_stall(broker, monkeypatch):
    monkeypatch.setattr(aio, "SAFETY_S", 0.02)  # look for lost signals often

    async def steps(client):
        async def ask(i):
            return int((await client.infer("echo", {"x": np.array(i)}))["x"])

        for _ in range(3):
            assert await asyncio.gather(*map(ask, range(2000))) == list(range(2000))
        assert client.stalls == 0

    use(broker, steps)


def test_eight_callers_that_ask_again_and_again_see_no_stall(broker, monkeypatch):
    monkeypatch.setattr(aio, "SAFETY_S", 0.02)

    async def steps(client):
        async def ask():
            for _ in range(100):
                await client.infer("echo", X)

        await asyncio.gather(*(ask() for _ in range(8)))
        assert client.stalls == 0

    use(broker, steps)


def test_a_busy_event_loop_is_no_stall(broker, monkeypatch):
    monkeypatch.setattr(aio, "SAFETY_S", 0.005)

    async def steps(client):
        for _ in range(10):
            task = asyncio.create_task(client.infer("echo", X))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.02)  # the reply and the time to look for a stall come while the loop is held
            await task
        assert client.stalls == 0

    use(broker, steps)


# ---- cancelling and time


def test_cancelling_a_task_withdraws_its_request(broker):
    async def steps(client):
        task = asyncio.create_task(client.infer("hold", X))
        await until(broker.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(broker.cancelled)
        assert broker.cancelled() == {broker.requests()[0].id}
        assert await client.infer("echo", X)

    use(broker, steps)


def test_a_task_cancelled_before_its_request_left_sends_nothing(absent):
    async def steps(client):
        task = asyncio.create_task(client.infer("hold", X))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        absent.start()
        await client.infer("echo", X)
        assert {r.model for r in absent.requests()} == {"echo"}
        assert absent.cancelled() == set()

    use(absent, steps)


def test_cancelling_while_replies_arrive_breaks_nothing(broker):
    async def steps(client):
        tasks = [asyncio.create_task(client.infer("echo", X)) for _ in range(200)]
        for i, task in enumerate(tasks):
            if i % 2:
                task.cancel()
            if i % 50 == 0:
                await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(o, (dict, asyncio.CancelledError)) for o in outcomes)
        assert await client.infer("echo", X)

    use(broker, steps)


def test_without_a_broker_a_request_ends_within_its_timeout(absent):
    async def steps(client):
        start = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            await client.infer("echo", X, timeout_s=0.2)
        assert 0.15 < time.monotonic() - start < 1

    use(absent, steps)


def test_a_broker_that_does_not_answer_exceeds_the_deadline(broker):
    async def steps(client):
        with pytest.raises(DeadlineExceeded):
            await client.infer("hold", X, timeout_s=0.1)
        with pytest.raises(DeadlineExceeded):
            await client.infer("echo", X, timeout_s=-1)

    use(broker, steps)


def test_a_restart_of_the_broker_is_a_pause(broker):
    async def steps(client):
        await client.infer("echo", X)
        held = asyncio.create_task(client.infer("hold", X))
        await until(lambda: any(r.model == "hold" for r in broker.requests()))
        await asyncio.to_thread(broker.stop)
        meanwhile = asyncio.create_task(client.infer("echo", X))
        await asyncio.sleep(0.01)
        broker.start()
        assert await meanwhile
        await until(lambda: any(r.attempt for r in broker.requests() if r.model == "hold"))
        held.cancel()

    use(broker, steps)


def test_what_is_asked_first_after_a_restart_is_asked_once(broker):
    async def steps(client):
        await client.infer("echo", X)
        await asyncio.to_thread(broker.restart)
        held = [asyncio.create_task(client.infer("hold", X)) for _ in range(2 * SEND_AT)]
        await until(lambda: len(broker.requests()) > 2 * SEND_AT)
        pings = len(broker.seen(Ping))
        await until(lambda: len(broker.seen(Ping)) > pings + 1)
        assert [r.attempt for r in broker.requests()] == [0] * (2 * SEND_AT + 1)
        for task in held:
            task.cancel()

    use(broker, steps)


# ---- defects


def test_a_defect_in_the_loop_fails_what_is_open_and_no_more(broker, monkeypatch, caplog):
    async def steps(client):
        held = asyncio.create_task(client.infer("hold", X))
        await until(broker.requests)
        monkeypatch.setattr(inbox, "decode", lambda frame: 1 / 0)
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            await client.infer("echo", X)
        with pytest.raises(InternalError):
            await held
        monkeypatch.undo()
        assert await client.infer("echo", X)

    use(broker, steps)
    assert any(r.exc_info for r in caplog.records)


# ---- opening and closing


def test_closing_settles_what_is_open_says_bye_and_leaves_nothing(broker):
    use(broker, lambda client: client.infer("echo", X))
    threads, fds = set(threading.enumerate()), open_files()

    async def steps(client):
        held = asyncio.create_task(client.infer("hold", X))
        await until(lambda: any(r.model == "hold" for r in broker.requests()))
        await client.close()
        with pytest.raises(BrokerUnreachable, match="closed"):
            await held
        await client.close()
        for ask in (client.infer("echo", X), client.stats()):
            with pytest.raises(BrokerUnreachable, match="not open"):
                await ask

    use(broker, steps)
    broker.wait_for(lambda: len(broker.seen(Bye)) == 2)
    assert set(threading.enumerate()) == threads
    assert open_files() <= fds + 1  # the broker may not have noticed yet


def test_a_client_may_be_opened_again(broker):
    async def steps(client):
        for _ in range(2):
            task = asyncio.create_task(client.infer("echo", X))
            await asyncio.sleep(0)
            await client.close()  # with a turn of the loop still to come
            await asyncio.gather(task, return_exceptions=True)
            await client.open()
            assert await client.infer("echo", X)

    use(broker, steps)


def test_a_client_is_refused_before_it_is_open(broker):
    async def ask():
        with pytest.raises(BrokerUnreachable, match="not open"):
            await AsyncClient(broker.address).infer("echo", X)

    asyncio.run(ask())


def test_an_address_that_is_none_is_refused_when_opening():
    async def opening():
        before = open_files()
        with pytest.raises(SettingsError, match="address"):
            await AsyncClient("nonsense").open()
        assert open_files() == before

    asyncio.run(opening())


def test_a_program_ends_at_once_and_without_a_warning(broker):
    program = f"""
import asyncio, numpy as np
from headway import AsyncClient
async def main():
    async with AsyncClient({broker.address!r}) as client:
        await client.infer("echo", {{"x": np.ones(3)}})
        task = asyncio.create_task(client.infer("hold", {{"x": np.ones(3)}}))
        await asyncio.sleep(0.01)
        task.cancel()
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (run.returncode, run.stderr) == (0, "")
