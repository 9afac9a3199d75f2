"""Replies in pieces, through real processes: an archive whose handler takes its time between pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, closing

import pytest

from headway import AsyncClient, Body, Client
from headway.errors import ModelError, WorkerLost
from headway.outgoing import ask_body
from headway.pieces import MORE
from tests.system.stack import Up, serving, until
from tests.worker.archives import archived, needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]

READY_S = 30.0
# Each piece says when it was sent; the clock is the same for all processes of a host.
HANDLER = """
    import time
    from ts.handler_utils.utils import send_intermediate_predict_response as send

    def handle(data, context):
        if data is None:
            return
        asked = data[0]["body"]
        context.set_response_status(202, "Going on")
        for _ in range(asked["pieces"]):
            send([f"{time.monotonic()} "], context.request_ids, "ok", 200, context)
            time.sleep(asked["pause_s"])
        if asked.get("fails"):
            raise ValueError("out of words")
        return [f"{time.monotonic()} " if asked.get("says_end", True) else ""]
"""
TOML = 'backend = "torchserve"\nfile = "talk.mar"\nresponse_timeout_s = 1\n'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    made = archived(folder, "handler.py", {"handler.py": HANDLER}, name="talk")
    version = folder / "models" / "talk" / "1"
    version.mkdir(parents=True)
    made.rename(version / made.name)
    (version / "model.toml").write_text(TOML)
    with serving(folder) as running:
        until(lambda: running.ready_copies("talk") == 1, READY_S)
        yield running


def asking(pieces: int, pause_s: float, **more: bool) -> Body:
    says = ", ".join(
        [
            f'"pieces": {pieces}',
            f'"pause_s": {pause_s}',
            *(f'"{k}": {str(v).lower()}' for k, v in more.items()),
        ]
    )
    return Body(f"{{{says}}}".encode(), "application/json")


def test_a_piece_arrives_while_the_handler_goes_on(up: Up) -> None:
    with Client(up.direct) as client:
        came = [(float(body.text()), time.monotonic()) for body in client.stream("talk", asking(4, 0.1))]
    sent, arrived = zip(*came, strict=True)
    assert len(came) == 5
    assert list(sent) == sorted(sent)
    ended = sent[-1]
    assert arrived[0] < ended - 0.2, "the first piece waited for the end"
    assert min(a - s for s, a in came) < 0.05, "no piece came at once"


def test_a_reply_goes_on_for_longer_than_the_response_timeout(up: Up) -> None:
    with Client(up.direct) as client:
        assert len(list(client.stream("talk", asking(4, 0.4)))) == 5


def test_who_takes_no_pieces_gets_them_as_one(up: Up) -> None:
    with Client(up.direct) as client:
        assert len(client.predict("talk", asking(3, 0.01)).text().split()) == 4


def test_the_asyncio_client_has_replies_with_all_that_the_handler_said(up: Up) -> None:
    async def run() -> None:
        async with AsyncClient(up.direct) as client:
            asked = ask_body("talk", asking(2, 0.05))
            replies = [reply async for reply in client.replies(asked)]
            assert [reply.meta.get(MORE, 0) for reply in replies] == [1, 1, 0]
            for reply in replies:
                assert (reply.meta["status"], reply.meta["phrase"]) == (202, "Going on")
                assert reply.meta["headers"] == {"ts_stream_next": "true"}
                assert reply.meta["version"] == "1"
            bodies = [body async for body in client.stream("talk", asking(2, 0, says_end=False))]
            assert len(bodies) == 2, "an empty end is no piece"

    asyncio.run(run())


def test_who_leaves_early_withdraws_the_request(up: Up) -> None:
    with Client(up.direct) as client, closing(client.stream("talk", asking(2, 0.5))) as bodies:
        next(bodies)
        cancelled = counted(up, "Cancelled")
        bodies.close()
        until(lambda: counted(up, "Cancelled") == cancelled + 1, 5.0)

    async def leave() -> None:
        async with (
            AsyncClient(up.direct) as client,
            aclosing(client.stream("talk", asking(2, 0.2))) as bodies,
        ):
            async for _ in bodies:
                break

    asyncio.run(leave())
    until(lambda: counted(up, "Cancelled") == cancelled + 2, 5.0)


def counted(up: Up, outcome: str) -> int:
    with Client(up.direct) as client:
        return sum(model["outcomes"].get(outcome, 0) for model in client.stats()["models"])


def test_an_error_after_the_first_pieces_is_raised_after_them(up: Up) -> None:
    with Client(up.direct) as client:
        bodies = client.stream("talk", asking(2, 0.01, fails=True))
        assert next(bodies) and next(bodies)
        with pytest.raises(ModelError, match="out of words"):
            next(bodies)


def test_a_worker_killed_in_the_middle_of_a_reply_is_told_and_not_run_again(up: Up) -> None:
    with Client(up.direct) as client:
        bodies = client.stream("talk", asking(3, 0.5))
        next(bodies)
        up.kill_worker_of("talk")
        with pytest.raises(WorkerLost, match="after the reply had begun"):
            next(bodies)
    until(lambda: up.ready_copies("talk") == 1, READY_S)
    with Client(up.direct) as client:
        assert len(list(client.stream("talk", asking(1, 0)))) == 2
