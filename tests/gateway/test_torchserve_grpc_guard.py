from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from headway.torchserve.keys import INFERENCE, Keys
from headway_gateway.torchserve.grpc import inference, management
from headway_gateway.torchserve.grpc.guard import Guard
from headway_gateway.torchserve.refusal import Refusal
from tests.gateway.grpc_site import Site

TOLD = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


class OneKey:
    """A key for inference."""

    def check(self, kind: str, given: str) -> bool:
        return (kind, given) == (INFERENCE, "right")


def test_without_keys_everybody_may_call() -> None:
    Guard(None, INFERENCE).admit([])


def test_the_right_key_may_call() -> None:
    Guard(OneKey(), INFERENCE).admit([("other", b"x"), ("authorization", "Bearer right")])


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "right")],
        [("authorization", "Basic right")],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer")],
        [("x-authorization", "Bearer right")],
    ],
)
def test_anything_else_is_refused(metadata: list[tuple[str, Any]]) -> None:
    with pytest.raises(Refusal, match="Token Authorization failed") as caught:
        Guard(OneKey(), INFERENCE).admit(metadata)
    assert (caught.value.status, caught.value.type) == (403, "")


def test_each_address_takes_its_own_key_and_says_why_not(tmp_path: Any) -> None:
    keys = Keys(tmp_path / "key_file.json", 60)
    keys.make()
    site = Site(disable_token_authorization=False, key_file=str(keys.path))
    text = keys.path.read_text()
    own, other = (text.split(f'"{kind}"')[1].split('"')[3] for kind in ("inference", "management"))
    bearer = {key: [("authorization", f"Bearer {key}")] for key in (own, other)}
    assert site.call(inference.SERVICE, "Ping", Empty(), bearer[own]).health
    request = management.messages.ListModelsRequest()
    assert site.call(management.SERVICE, "ListModels", request, bearer[other]).msg
    for service, method, asked, key in (
        (inference.SERVICE, "Ping", Empty(), other),
        (management.SERVICE, "ListModels", request, own),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            site.call(service, method, asked, bearer[key])
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details() == TOLD
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        site.call(inference.SERVICE, "StreamPredictions", inference.Request(model_name="echo"))
    assert caught.value.details() == TOLD
    assert site.client.calls == []
