from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import ErrorInfo

from headway.body import Body
from headway.errors import BrokerUnreachable, ModelError, NotReady, QueueFull, UnknownModel, WorkerLost
from headway.stub import AsyncStubClient
from headway.torchserve.registration import Registration
from headway_gateway.torchserve.grpc.inference import SERVICE, Request
from tests.gateway.conftest import raising
from tests.gateway.grpc_site import FakeRegistry, Site, stub_of
from tests.gateway.torchserve_door import headers_of

ECHO = Registration("echo", "1.0", "echo.mar", "/echo.mar")


def parts(body: Body) -> Body:
    named = body.parts or {}
    said = ",".join(f"{name}={part.text()}:{part.content_type}" for name, part in sorted(named.items()))
    return Body(said.encode())


def talking(body: Body) -> Iterator[Body]:
    for word in ("one ", "two ", ""):
        yield Body(word.encode())


def saying(message: str, status: int) -> ModelError:
    """As it comes from a worker that says what the client shall be told."""
    error = ModelError("the traceback")
    error.meta = {"message": message, "status": status}
    return error


def site_of(model: Callable[[Any], Any], **changed: Any) -> Site:
    return Site(AsyncStubClient({"m": model}), **changed)


def predicted(site: Site, method: str = "Predictions", **request: Any) -> Any:
    request.setdefault("model_name", "m")
    return site.call(SERVICE, method, Request(**request))


def refused(site: Site, method: str = "Predictions", **request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        predicted(site, method, **request)
    return caught.value.code().name, caught.value.details() or ""


def test_ping_says_the_text_that_http_says_too() -> None:
    assert Site().call(SERVICE, "Ping", Empty()).health == '{\n  "status": "Healthy"\n}'


def test_ping_is_unhealthy_without_a_broker() -> None:
    class Silent(AsyncStubClient):
        async def models(self) -> list[dict[str, Any]]:
            raise BrokerUnreachable("nobody there")

    assert "Unhealthy" in Site(Silent({})).call(SERVICE, "Ping", Empty()).health


def test_ping_heeds_models_that_do_not_serve_only_if_it_shall_be_truthful() -> None:
    class Loading(AsyncStubClient):
        async def models(self) -> list[dict[str, Any]]:
            return [{**model, "ready": 0} for model in await super().models()]

    loading = Loading({"m": parts})
    assert '"Healthy"' in Site(loading).call(SERVICE, "Ping", Empty()).health
    assert '"Unhealthy"' in Site(loading, headway_truthful_ping=True).call(SERVICE, "Ping", Empty()).health


def test_ping_is_unhealthy_when_a_model_that_served_is_away_for_longer_than_it_may() -> None:
    class Lost(AsyncStubClient):
        ready = 1

        async def models(self) -> list[dict[str, Any]]:
            return [{**model, "ready": self.ready} for model in await super().models()]

    async def run() -> list[str]:
        gone = Registration("m", "1", "m.mar", "/m.mar", retry_timeout_s=0)
        site = Site(client := Lost({"m": parts}), registry=FakeRegistry(gone))
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            ping = stub_of(channel, SERVICE, "Ping")
            said = [(await ping(Empty(), timeout=10)).health]
            client.ready = 0
            await ping(Empty(), timeout=10)
            return [*said, (await ping(Empty(), timeout=10)).health]

    before, after = asyncio.run(run())
    assert ("Unhealthy" in before, "Unhealthy" in after) == (False, True)


def test_inputs_reach_the_model_by_name_and_without_a_media_type() -> None:
    answer = predicted(site_of(parts), input={"data": b"hi", "more": b"{}"})
    assert answer.prediction == b"data=hi:,more={}:"
    assert not answer.HasField("sequence_id")
    assert not answer.HasField("status")


def test_a_request_names_its_version_and_the_clients_metadata_are_its_headers() -> None:
    site = site_of(parts)
    request = Request(model_name="m", model_version="2.0", input={"data": b"x"})
    site.call(SERVICE, "Predictions", request, [("x-mine", "1"), ("authorization", "Bearer secret")])
    (asked,) = site.client.calls
    assert (asked.model, asked.version) == ("m", "2.0")
    assert headers_of(asked)["x-mine"] == "1"
    assert "authorization" not in headers_of(asked)
    assert len(asked.options["request_id"]) == 36
    assert site.counted.predictions == [(200, "m", "2.0")]
    assert site.counted.accesses == [(f"gRPC {SERVICE.full_name}/Predictions HTTP/2.0", 0)]


def test_a_sequence_id_comes_back_where_it_may_mean_something() -> None:
    assert predicted(site_of(parts), sequence_id="s").sequence_id == "s"
    assert not predicted(site_of(parts)).HasField("sequence_id")


def test_a_sequence_id_means_nothing_to_a_model_without_sequences() -> None:
    site = site_of(parts, registry=FakeRegistry(Registration("m", "1.0", "m.mar", "/m.mar")))
    assert not predicted(site, sequence_id="s").HasField("sequence_id")
    assert "ts_request_sequence_id" not in headers_of(site.client.calls[0])


def test_a_request_of_its_own_to_a_model_with_sequences_gets_an_id() -> None:
    stateful = Registration("m", "1.0", "m.mar", "/m.mar", stateful=True, sequence_idle_ms=9)
    site = site_of(parts, registry=FakeRegistry(stateful))
    assert predicted(site).sequence_id.startswith("ts-seq-")
    assert site.client.calls[0].options["sequence_start"] == "true"
    assert predicted(site, sequence_id="s").sequence_id == "s"


def test_a_model_that_is_not_there_is_not_found() -> None:
    name = "org.pytorch.serve.archive.model.ModelNotFoundException"
    assert refused(Site(), model_name="none") == ("NOT_FOUND", f"Model not found: none\n{name}")


def test_a_version_that_is_not_there_is_not_found() -> None:
    site = Site(AsyncStubClient({"echo": raising(UnknownModel("no"))}), registry=FakeRegistry(ECHO))
    code, details = refused(site, model_name="echo", model_version="7")
    text = "Model version: 7 does not exist for model: echo"
    name = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
    assert (code, details) == ("NOT_FOUND", f"{text}\n{name}")


def test_a_request_without_a_model_is_an_invalid_argument() -> None:
    code, details = refused(Site(), model_name="")
    assert (code, details.split("\n")[0]) == ("INVALID_ARGUMENT", "Parameter model_name is required.")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ModelError("ValueError: no"), "UNAVAILABLE", "Prediction failed"),
        (saying("teapot", 418), "FAILED_PRECONDITION", "teapot"),
        (saying("lost", 404), "NOT_FOUND", "lost"),
        (saying("Out of resources", 507), "INTERNAL", "Out of resources"),
        (WorkerLost("twice"), "INTERNAL", "Worker died."),
        (QueueFull("100 wait"), "UNAVAILABLE", 'Model "m" has no room'),
        (NotReady("none"), "UNAVAILABLE", 'Model "m" has no worker to serve inference request.'),
    ],
)
def test_what_went_wrong_is_a_status_and_two_lines(error: Exception, code: str, text: str) -> None:
    site = site_of(raising(error))
    found, details = refused(site)
    message, name = details.split("\n")
    assert (found, name.startswith("org.pytorch.serve.http.")) == (code, True)
    assert message.startswith(text)
    ((status, *_),) = site.counted.predictions
    assert site.counted.metas == [getattr(error, "meta", {})]
    ((_, number),) = site.counted.accesses
    assert status >= 400
    assert number == grpc.StatusCode[code].value[0]


def test_all_503s_have_one_text_where_they_shall() -> None:
    site = site_of(raising(QueueFull("100 wait")), headway_telling_messages=False)
    assert "has no worker to serve" in refused(site)[1]


def test_a_defect_is_told_without_its_text() -> None:
    code, details = refused(site_of(raising(RuntimeError("secret"))))
    assert code == "INTERNAL"
    assert "secret" not in details


def test_an_answer_over_the_limit_is_a_failure() -> None:
    site = site_of(lambda body: Body(b"x" * 101), max_response_size=100)
    assert refused(site)[0] == "INTERNAL"


def test_a_request_over_the_limit_is_refused() -> None:
    site = site_of(parts, max_request_size=1000)
    assert refused(site, input={"data": b"x" * 1001})[0] == "RESOURCE_EXHAUSTED"
    assert predicted(site, input={"data": b"x" * 900}).prediction


def test_pieces_arrive_as_messages_of_their_own() -> None:
    site = site_of(talking)
    pieces = predicted(site, "StreamPredictions")
    assert [piece.prediction for piece in pieces] == [b"one ", b"two ", b""]
    assert site.client.calls[0].options["stream"] == "true"
    assert site.counted.predictions == [(200, "m", "")]


def test_who_asks_for_no_pieces_gets_the_answer_whole() -> None:
    assert predicted(site_of(talking)).prediction == b"one two "


def test_a_stream_from_a_model_that_does_not_stream_is_one_message() -> None:
    (piece,) = predicted(site_of(parts), "StreamPredictions", input={"data": b"x"})
    assert piece.prediction == b"data=x:"


def test_an_error_after_the_first_piece_ends_the_stream() -> None:
    def breaking(body: Body) -> Iterator[Body]:
        yield Body(b"one")
        yield Body(b"two")
        raise ModelError("no")

    code, details = refused(site_of(breaking), "StreamPredictions")
    assert (code, details.split("\n")[0]) == ("UNAVAILABLE", "Prediction failed")


def streamed(site: Site, *requests: Request) -> list[Any]:
    async def asking() -> AsyncIterator[Request]:
        for request in requests:
            yield request

    answers: list[Any] = site.call(SERVICE, "StreamPredictions2", asking())
    return answers


def test_a_stream_of_requests_is_answered_in_order_with_its_sequence() -> None:
    site = site_of(lambda body: Body(body.data))
    requests = [Request(model_name="m", sequence_id="s", input={"data": b"%d" % i}) for i in range(5)]
    answers = streamed(site, *requests)
    assert [(a.prediction, a.sequence_id) for a in answers] == [(b"%d" % i, "s") for i in range(5)]
    assert headers_of(site.client.calls[0])["ts_request_sequence_id"] == "s"


def test_the_handler_is_told_where_a_sequence_starts_and_ends() -> None:
    site = site_of(lambda body: Body(b""))
    flags = {"ts_request_sequence_start": b"true", "ts_request_sequence_end": b"True"}
    streamed(site, Request(model_name="m", input=flags), Request(model_name="m", sequence_id="s"))
    first, second = (headers_of(asked) for asked in site.client.calls)
    assert first["ts_request_sequence_id"].startswith("ts-seq-")
    assert (first["ts_request_sequence_start"], first["ts_request_sequence_end"]) == ("true", "true")
    assert not {"ts_request_sequence_start", "ts_request_sequence_end"} & set(second)


def test_a_bad_request_of_a_stream_is_told_in_a_message_and_the_stream_goes_on() -> None:
    site = Site()
    answers = streamed(
        site,
        Request(model_name="echo", input={"data": b"x"}),
        Request(model_name="none", sequence_id="s"),
        Request(model_name="echo", sequence_id="s", input={"data": b"last"}),
    )
    assert [a.status.code for a in answers] == [3, 5, 0]
    assert answers[0].status.message == "Parameter sequenceId is required."
    info = ErrorInfo()
    assert answers[1].status.details[0].Unpack(info)
    assert info.reason == "org.pytorch.serve.archive.model.ModelNotFoundException"
    assert (answers[2].prediction, answers[2].HasField("status")) == (b"last", False)


class Slow(AsyncStubClient):
    """Never answers; `limits_s` are the timeouts that it was asked with, `left` counts who was withdrawn."""

    def __init__(self) -> None:
        super().__init__({})
        self.limits_s: list[float | None] = []
        self.left = 0
        self.asked = asyncio.Event()

    async def reply(self, asked: Any, timeout_s: float | None = None) -> Any:
        self.limits_s.append(timeout_s)
        self.asked.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.left += 1

    async def replies(self, asked: Any, timeout_s: float | None = None) -> Any:
        await self.reply(asked, timeout_s)
        yield None


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
def test_a_client_that_cancels_withdraws_its_request(method: str) -> None:
    async def run() -> None:
        site = Site(client := Slow())
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            called = stub_of(channel, SERVICE, method)(Request(model_name="m"))
            reading = asyncio.ensure_future(called if method == "Predictions" else called.read())
            await asyncio.wait_for(client.asked.wait(), 30)
            called.cancel()
            await asyncio.wait([reading])
            async with asyncio.timeout(30):
                while not site.counted.accesses:
                    await asyncio.sleep(0.01)
        assert client.left == 1
        assert client.limits_s == [3600.0]
        assert site.counted.predictions == [(499, "m", "")]
        assert site.counted.accesses[0][1] == 1

    asyncio.run(run())


def test_a_clients_deadline_is_the_requests() -> None:
    async def run() -> None:
        site = Site(client := Slow(), registry=FakeRegistry(ECHO))
        async with site.serving() as servers, site.channel(servers, SERVICE) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub_of(channel, SERVICE, "Predictions")(Request(model_name="echo"), timeout=1.0)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            async with asyncio.timeout(30):
                while not (client.left and site.counted.accesses):
                    await asyncio.sleep(0.01)
        assert client.limits_s[0] == pytest.approx(0.5, abs=0.51)  # what is left; the way rounds it up

    asyncio.run(run())
