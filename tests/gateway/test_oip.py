"""headway_gateway.oip: the routes under /v2."""

from __future__ import annotations

import json

import numpy as np
import pytest

import headway
from headway.body import Body
from headway.messages import OK, Reply
from headway.stub import AsyncStubClient
from headway.tensors import pack

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]}


def state(name: str, version: str = "1", **more) -> dict:
    shown = {"name": name, "version": version, "default": False, "state": "ready", "wanted": 1, "ready": 1}
    tensors = {"inputs": [["x", "float32", [3, -1]]], "outputs": [["y", "bytes", []]]}
    return {**shown, "error": "", "backend": "torchscript", "batch_size_max": 8, **tensors, **more}


class KnowingStub(AsyncStubClient):
    """A stub whose list of models the test writes."""

    def __init__(self, *states: dict) -> None:
        super().__init__({})
        self.states = list(states)

    async def models(self):
        return self.states


@pytest.fixture
def known(over):
    return over(
        KnowingStub(state("m", "1"), state("m", "2", default=True), state("sad", ready=0, state="failed"))
    )


def test_the_server_says_who_it_is(site):
    assert site.get("/v2").json() == {
        "name": "headway",
        "version": headway.__version__,
        "extensions": ["binary_tensor_data", "parameters"],
    }


def test_it_is_live_without_a_broker_and_says_so_with_an_empty_body(site):
    answer = site.get("/v2/health/live")
    assert (answer.status_code, answer.content) == (200, b"")


def test_it_is_ready_when_every_wanted_version_is(over):
    site = over(KnowingStub(state("a"), state("off", wanted=0, ready=0, state="waiting")))
    answer = site.get("/v2/health/ready")
    assert (answer.status_code, answer.content) == (200, b"")
    site.client.states.append(state("b", "2", ready=0, state="loading"))
    answer = site.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (400, {"error": "not ready: b/2"})


def test_metadata_lists_versions_and_tensors_with_a_batch_dimension(known):
    assert known.get("/v2/models/m").json() == {
        "name": "m",
        "versions": ["2", "1"],
        "platform": "headway_torchscript",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
    assert known.get("/v2/models/m/versions/1").json()["versions"] == ["1"]
    assert known.get("/v2/models/sad").json()["versions"] == []


@pytest.mark.parametrize("path", ["/v2/models/nobody", "/v2/models/m/versions/9"])
def test_metadata_of_an_unknown_model_is_404_and_it_is_not_ready(known, path):
    assert known.get(path).status_code == 404
    assert known.get(path).json().keys() == {"error"}
    ready = known.get(path + "/ready")
    assert (ready.status_code, ready.json().keys()) == (400, {"error"})


def test_a_model_is_ready_when_its_default_version_is(known):
    for path in ("/v2/models/m/ready", "/v2/models/m/versions/1/ready"):
        assert (known.get(path).status_code, known.get(path).content) == (200, b"")
    sad = known.get("/v2/models/sad/ready")
    assert (sad.status_code, sad.json()) == (400, {"error": "model 'sad', version 1 is not ready"})


def test_infer_with_json(site):
    answer = site.infer("double", [X], id="7")
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers
    assert answer.json() == {
        "id": "7",
        "model_name": "double",
        "model_version": "",
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0]}],
    }
    assert site.client.calls[0].rows == 1


def test_nan_literals_travel_both_ways(site):
    body = b'{"inputs":[{"name":"x","shape":[3],"datatype":"FP64","data":[NaN,Infinity,-Infinity]}]}'
    answer = site.post("/v2/models/same/infer", content=body)
    assert b'"data":[NaN, Infinity, -Infinity]'.replace(b" ", b"") in answer.content


def binary_request(tail: bytes, inputs: list[dict], **more) -> dict:
    text = json.dumps({"inputs": inputs, **more}).encode()
    return {"content": text + tail, "headers": {"inference-header-content-length": str(len(text))}}


BINARY_X = {"name": "b", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}


def test_infer_with_binary_tensors_both_ways(site):
    data = np.array([[1, 2]], "<f4")
    asked = binary_request(data.tobytes(), [BINARY_X], parameters={"binary_data_output": True})
    answer = site.post("/v2/models/double/versions/3/infer", **asked)
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["Inference-Header-Content-Length"])
    head = json.loads(answer.content[:end])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert answer.content[end:] == (data * 2).tobytes()
    assert (head["model_version"], site.client.calls[0].version) == ("3", "3")


def test_json_and_binary_inputs_and_outputs_mix(site):
    outputs = [{"name": "b", "parameters": {"binary_data": True}}, {"name": "x"}]
    asked = binary_request(np.array([3, 4], "<f4").tobytes(), [X, BINARY_X], outputs=outputs)
    answer = site.post("/v2/models/same/infer", **asked)
    end = int(answer.headers["Inference-Header-Content-Length"])
    x, b = json.loads(answer.content[:end])["outputs"]
    assert x["data"] == [1.5, 2.0] and "data" not in b
    assert np.frombuffer(answer.content[end:], "<f4").tolist() == [3.0, 4.0]


def test_half_precision_out_needs_binary_data(site):
    refused = site.infer("two", [X])
    assert refused.status_code == 400 and "output 'half'" in refused.json()["error"]
    assert site.infer("two", [X], outputs=[{"name": "full"}]).status_code == 200
    binary = [{"name": "half", "parameters": {"binary_data": True}}]
    assert site.infer("two", [X], outputs=binary).content.endswith(np.array([1.5, 2], "<f2").tobytes())


@pytest.mark.parametrize("length", ["-1", "0", "x", "", "1e1", "999", "9" * 20])
def test_a_json_length_outside_the_body_is_400(site, length):
    asked = binary_request(b"", [X])
    asked["headers"]["inference-header-content-length"] = length
    answer = site.post("/v2/models/double/infer", **asked)
    assert answer.status_code == 400
    assert "Inference-Header-Content-Length" in answer.json()["error"]


def test_malformed_json_is_400_and_not_500(site):
    answer = site.post("/v2/models/double/infer", content=b"{")
    assert (answer.status_code, answer.json().keys()) == (400, {"error"})


def test_what_is_wrong_is_named_and_the_model_never_sees_it(site):
    assert "input 'x': datatype 'FP33'" in site.infer("double", [{**X, "datatype": "FP33"}]).text
    assert "output 'z'" in site.infer("double", [X], outputs=[{"name": "z"}]).text
    assert len(site.client.calls) == 1  # which outputs there are, only the model knows


def test_content_types_and_queries_do_not_matter(site):
    body = json.dumps({"inputs": [X]}).encode()
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "bad"):
        answer = site.post(
            "/v2/models/same/infer?a=1&a=2", content=body, headers={"content-type": content_type}
        )
        assert answer.status_code == 200


def test_parameters_and_no_others_travel_as_options(site):
    site.infer("same", [X])
    site.infer("same", [X], parameters={"top": 3, "timeout": 5_000_000, "priority": 2})
    assert [call.options for call in site.client.calls] == [{}, {"parameters": {"top": 3}}]


class NotingStub(AsyncStubClient):
    async def reply(self, asked, timeout_s=None):
        self.timeout_s = timeout_s
        return Reply(0, OK, pack({"y": np.ones(1, np.float32)}), {"version": "1.2"})


@pytest.mark.parametrize(
    ("header", "parameter", "expected"),
    [
        (None, None, 60.0),
        ("250", None, 0.25),
        (None, 500_000, 0.5),
        ("250", 500_000, 0.25),
        ("700", 1, 1e-6),
        (None, 10**15, 3600.0),
        ("9", 0, 0.009),
    ],
)
def test_the_shorter_timeout_counts(over, header, parameter, expected):
    site = over(NotingStub({}))
    parameters = {} if parameter is None else {"parameters": {"timeout": parameter}}
    headers = {} if header is None else {"Headway-Timeout-Ms": header}
    body = json.dumps({"inputs": [X], **parameters}).encode()
    assert site.post("/v2/models/m/infer", content=body, headers=headers).status_code == 200
    assert site.client.timeout_s == expected


def test_the_version_in_the_reply_is_the_one_that_ran(over):
    assert over(NotingStub({})).infer("m", [X]).json()["model_version"] == "1.2"


def test_a_reply_that_holds_no_tensors_is_not_the_callers_fault(over):
    class Odd(AsyncStubClient):
        async def reply(self, asked, timeout_s=None):
            return Reply(0, OK, b"\x01", {})

    answer = over(Odd({"m": lambda _: Body(b"")})).infer("m", [X])
    assert answer.status_code == 500 and "reply holds no tensors" in answer.json()["error"]


def test_an_unknown_model_is_404(site):
    answer = site.infer("nobody", [X])
    assert (answer.status_code, answer.json()) == (404, {"error": "there is no model 'nobody'"})
