from __future__ import annotations

from typing import Any

import grpc.aio
import pytest

from headway.torchserve.registering import Wish
from headway_gateway.torchserve.grpc.management import SERVICE
from headway_gateway.torchserve.grpc.proto import management_pb2 as messages
from headway_gateway.torchserve.refusal import Refusal
from tests.gateway.grpc_site import FakeOperations, Site


def ordered(method: str, request: Any) -> tuple[str, list[tuple[Any, ...]]]:
    """What is answered, and what the operations were asked for."""
    site = Site()
    answer = site.call(SERVICE, method, request)
    return answer.msg, site.operations.orders


def refused(site: Site, method: str, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        site.call(SERVICE, method, request)
    return caught.value.code().name, caught.value.details() or ""


def test_a_description_is_the_json_of_http_without_its_last_newline() -> None:
    said, orders = ordered("DescribeModel", messages.DescribeModelRequest(model_name="m"))
    assert said == '[\n  {\n    "modelName": "m"\n  }\n]'
    assert orders == [("describe", "m", None, False)]


def test_a_description_may_be_of_one_version_and_customized() -> None:
    request = messages.DescribeModelRequest(model_name="m", model_version="all", customized=True)
    assert ordered("DescribeModel", request)[1] == [("describe", "m", "all", True)]


def test_a_list_without_a_limit_is_a_full_page() -> None:
    said, orders = ordered("ListModels", messages.ListModelsRequest())
    assert said == '{\n  "models": []\n}'
    assert orders == [("list_models", 100, 0)]
    request = messages.ListModelsRequest(limit=2, next_page_token=4)
    assert ordered("ListModels", request)[1] == [("list_models", 2, 4)]


def test_numbers_that_are_not_above_0_say_nothing_at_registration() -> None:
    request = messages.RegisterModelRequest(url="m.mar", batch_size=-1)
    said, orders = ordered("RegisterModel", request)
    assert said == "register done"
    assert orders == [("register", Wish("m.mar"), False, False)]


def test_all_that_a_registration_says_is_passed_on() -> None:
    request = messages.RegisterModelRequest(
        url="m.mar",
        model_name="n",
        handler="h",
        runtime="python3",
        batch_size=2,
        max_batch_delay=3,
        initial_workers=4,
        response_timeout=5,
        startup_timeout=6,
        synchronous=True,
        s3_sse_kms=True,
    )
    wish = Wish("m.mar", "n", "h", "python3", 2, 3, 4, None, 5, 6)
    assert ordered("RegisterModel", request)[1] == [("register", wish, True, True)]


def test_to_scale_without_numbers_is_to_one_worker() -> None:
    said, orders = ordered("ScaleWorker", messages.ScaleWorkerRequest(model_name="m"))
    assert (said, orders) == ("scale done", [("scale", "m", None, 1, None, False)])
    request = messages.ScaleWorkerRequest(
        model_name="m", model_version="2", min_worker=3, max_worker=4, synchronous=True
    )
    assert ordered("ScaleWorker", request)[1] == [("scale", "m", "2", 3, 4, True)]


def test_a_version_becomes_the_default_one_and_models_go() -> None:
    request: Any = messages.SetDefaultRequest(model_name="m", model_version="2")
    assert ordered("SetDefault", request) == ("set_default done", [("set_default", "m", "2")])
    request = messages.UnregisterModelRequest(model_name="m")
    assert ordered("UnregisterModel", request) == ("unregister done", [("unregister", "m", None)])
    request = messages.UnregisterModelRequest(model_name="m", model_version="2")
    assert ordered("UnregisterModel", request)[1] == [("unregister", "m", "2")]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("RegisterModel", messages.RegisterModelRequest(url="m.mar")),
        ("UnregisterModel", messages.UnregisterModelRequest(model_name="m")),
    ],
)
def test_models_come_and_go_only_where_the_model_api_is_on(method: str, request_: Any) -> None:
    site = Site(operations=FakeOperations(is_model_api_on=False))
    name = "org.pytorch.serve.archive.model.ModelException"
    assert refused(site, method, request_) == ("PERMISSION_DENIED", f"Model API disabled\n{name}")
    assert site.operations.orders == []
    scale = messages.ScaleWorkerRequest(model_name="m")
    assert site.call(SERVICE, "ScaleWorker", scale).msg == "scale done"


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("RegisterModel", messages.RegisterModelRequest(), "Parameter url is required."),
        ("UnregisterModel", messages.UnregisterModelRequest(), "Parameter model_name is required."),
    ],
)
def test_what_must_be_said_is_asked_for(method: str, request_: Any, text: str) -> None:
    name = "org.pytorch.serve.http.BadRequestException"
    assert refused(Site(), method, request_) == ("INVALID_ARGUMENT", f"{text}\n{name}")


def test_what_is_not_there_is_not_found() -> None:
    code, details = refused(Site(), "DescribeModel", messages.DescribeModelRequest(model_name="none"))
    assert code == "NOT_FOUND"
    assert details == "Model not found: none\norg.pytorch.serve.archive.model.ModelNotFoundException"


@pytest.mark.parametrize(
    ("refusal", "code", "name"),
    [
        (Refusal(409, "ConflictStatusException", "there"), "ABORTED", "org.pytorch.serve.http."),
        (Refusal(400, "DownloadArchiveException", "no"), "INVALID_ARGUMENT", "org.pytorch.serve.archive."),
        (Refusal(500, "WorkerInitializationException", "no"), "INTERNAL", "org.pytorch.serve.wlm."),
    ],
)
def test_a_refusal_of_the_operations_is_a_status(refusal: Refusal, code: str, name: str) -> None:
    site = Site()
    site.operations.fails = refusal
    found, details = refused(site, "RegisterModel", messages.RegisterModelRequest(url="m.mar"))
    assert (found, details) == (code, f"{refusal.message}\n{name}{refusal.type}")
