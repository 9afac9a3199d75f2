"""The stubs behave as the clients do, as far as a program can tell."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest

from headway.aio import AsyncClient
from headway.body import Body
from headway.client import Client
from headway.errors import InvalidInput, QueueFull, UnknownModel
from headway.outgoing import ask_body
from headway.stub import AsyncStubClient, StubClient

X = {"x": np.ones(3, np.float32)}


def full(_):
    raise QueueFull("full", 0.5)


MODELS = {
    "double": lambda inputs: {"y": inputs["x"] * 2},
    "upper": lambda body: Body(bytes(body.data).upper(), body.content_type),
    "letters": lambda body: (Body(bytes([byte]), "a/b") for byte in bytes(body.data)),
    "complex": lambda inputs: {"y": np.zeros(1, complex)},
    "full": full,
}


@pytest.fixture
def stub():
    with StubClient(MODELS) as client:
        yield client


@pytest.mark.parametrize(
    ("stub_class", "client_class"), [(StubClient, Client), (AsyncStubClient, AsyncClient)]
)
def test_a_stub_takes_what_the_client_takes(stub_class, client_class):
    public = {n for n in vars(client_class) if not n.startswith("_")}
    assert public - set(dir(stub_class)) <= {"address"}
    for name in public & {
        "infer",
        "predict",
        "submit",
        "models",
        "stats",
        "reply",
        "replies",
        "stream",
        "open",
        "close",
    }:
        stubbed, real = (inspect.signature(getattr(c, name)).parameters for c in (stub_class, client_class))
        assert {n: p.kind for n, p in stubbed.items()} == {n: p.kind for n, p in real.items()}, name


def test_a_function_stands_in_for_a_model(stub):
    assert stub.infer("double", X)["y"].tolist() == [2.0, 2.0, 2.0]
    assert stub.predict("upper", Body(b"a", "text/plain")) == Body(b"A", "text/plain")
    assert stub.predict("upper", b"a").data == b"A"


def test_a_function_that_gives_several_bodies_stands_in_for_one_that_streams(stub):
    assert list(stub.stream("letters", b"abc")) == [Body(letter, "a/b") for letter in (b"a", b"b", b"c")]
    assert stub.calls[0].options["stream"] == "true"
    assert stub.predict("letters", b"abc") == Body(b"abc", "a/b")
    assert list(stub.stream("upper", Body(b"a", "text/plain"))) == [Body(b"A", "text/plain")]
    assert [body.data for body in stub.stream("letters", b"")] == [b""]


def test_the_asyncio_stub_streams_too():
    async def run():
        client, told, asked = AsyncStubClient(MODELS), [], ask_body("letters", b"abc")
        assert [body.data async for body in client.stream("letters", b"abc")] == [b"a", b"b", b"c"]
        replies = [reply async for reply in client.replies(asked)]
        assert [(r.content, "more" in r.meta) for r in replies] == [(b"a", True), (b"b", True), (b"c", False)]
        client.start(asked, None, lambda last: told.append(last.content), lambda r: told.append([r.content]))
        client.start(ask_body("full", b"x"), None, told.append, told.append)
        for _ in range(5):
            await asyncio.sleep(0)
        return told

    *told, error = asyncio.run(run())
    assert told == [[b"a"], [b"b"], b"c"]
    assert type(error) is QueueFull


def test_a_sticky_key_is_among_what_was_asked(stub):
    stub.infer("double", X, sticky="a")
    stub.predict("upper", b"a", sticky="b")
    stub.submit("double", X, sticky="c")
    assert [asked.options["sticky"] for asked in stub.calls] == ["a", "b", "c"]


def test_outputs_are_read_only_as_those_of_the_client(stub):
    assert not stub.infer("double", X)["y"].flags.writeable


def test_submit_is_done_at_once(stub):
    assert stub.submit("double", X).result(0)["y"][0] == 2
    assert stub.submit("upper", Body(b"a")).result(0).data == b"A"
    assert type(stub.submit("full", X).exception(0)) is QueueFull


def test_errors_of_the_model_are_raised(stub):
    with pytest.raises(QueueFull) as caught:
        stub.infer("full", X)
    assert caught.value.retry_after_s == 0.5


def test_a_model_that_there_is_not_is_unknown(stub):
    for ask in (lambda: stub.infer("gone", X), lambda: stub.predict("gone", b"")):
        with pytest.raises(UnknownModel, match="gone"):
            ask()


def test_a_dtype_that_does_not_travel_fails_here_too(stub):
    with pytest.raises(InvalidInput, match="complex"):
        stub.infer("complex", X)
    with pytest.raises(InvalidInput, match="complex"):
        stub.infer("double", {"x": np.zeros(1, complex)})


def test_what_was_asked_is_listed(stub):
    stub.infer("double", {"x": np.ones((4, 2))}, version="3", batched=True)
    stub.predict("upper", b"a")
    assert [(c.model, c.version, c.rows) for c in stub.calls] == [("double", "3", 4), ("upper", "", 0)]


def test_models_are_listed_as_ready(stub):
    assert {(m["name"], m["state"], m["default"]) for m in stub.models()} == {
        (n, "ready", True) for n in MODELS
    }
    assert stub.stats()["models"] == []


def test_the_asynchronous_stub_does_the_same():
    async def use():
        async with AsyncStubClient(MODELS) as client:
            assert (await client.infer("double", X))["y"].tolist() == [2.0, 2.0, 2.0]
            assert (await client.predict("upper", b"a")).data == b"A"
            assert [m["name"] for m in await client.models()] == list(MODELS)
            assert (await client.stats())["models"] == []
            with pytest.raises(QueueFull):
                await client.infer("full", X)
            assert client.stalls == 0

    asyncio.run(use())
