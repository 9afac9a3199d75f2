"""Bodies: preprocess and postprocess of a model, and what happens without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.body import Body, pack_body
from headway.errors import DeadlineExceeded, InvalidInput, ModelError, QueueFull
from headway.messages import BatchRequest
from tests.worker.bench import (
    DOUBLE,
    Bench,
    X,
    Y,
    body,
    floats,
    json_of,
    listed,
    request,
    tensor,
    tensors_of,
)

PROCESSED = 'batch_size_max = 4\nprocessing = "processing.py"\n' + X + Y
BOTH = """
import torch
def preprocess(request):
    request.state["scale"] = request.json()["scale"]
    return torch.tensor(request.json()["x"])
def postprocess(outputs, request):
    return {"y": outputs["y"] * request.state["scale"], "given": request.tensors["x"]}
"""


def processed(bench: Bench, preprocess: str = "", postprocess: str = "") -> None:
    """A doubling model with the given bodies of its two functions."""
    text = "import torch, numpy as np\nfrom headway.body import Body\nfrom headway.errors import QueueFull\n"
    if preprocess:
        text += f"def preprocess(request):\n    {preprocess}\n"
    if postprocess:
        text += f"def postprocess(outputs, request):\n    {postprocess}\n"
    bench.serve(PROCESSED, model=DOUBLE, processing=text)


def test_each_body_is_preprocessed_run_in_one_batch_and_postprocessed(bench: Bench) -> None:
    bench.serve(PROCESSED, model=DOUBLE, processing=BOTH)
    replies = bench.run(
        body({"x": [1.0, 2.0], "scale": 10}), request(x=floats(3, 4)), body({"x": [5.0, 6.0], "scale": 1})
    )
    assert json_of(replies[0]) == {"y": [20, 40], "given": [1, 2]}
    assert listed(tensors_of(replies[1])) == {"y": [6, 8]}
    assert json_of(replies[2]) == {"y": [10, 12], "given": [5, 6]}


def test_what_runs_out_of_time_while_others_are_preprocessed_is_not_preprocessed(
    bench: Bench, tmp_path: Path
) -> None:
    seconds = tmp_path / "seconds"
    seconds.touch()
    processed(
        bench,
        f"import os; os.truncate({str(seconds)!r}, os.path.getsize({str(seconds)!r}) + 2); "
        "return np.ones(2, np.float32)",
    )
    bench.runner._clock = lambda: bench.now + seconds.stat().st_size
    first, second = bench.run(body([]), body([]))
    assert (first.code, second.code) == (DeadlineExceeded.code, DeadlineExceeded.code)
    assert seconds.stat().st_size == 2


def test_methods_of_the_class_are_the_processing(bench: Bench) -> None:
    model = (
        DOUBLE
        + """
    def load(self, folder, device): self.offset = 100
    def preprocess(self, request): return {"x": __import__("numpy").frombuffer(request.body, "<f4")}
    def postprocess(self, outputs, request): return outputs["y"] + self.offset
"""
    )
    bench.serve(model=model)
    assert json_of(bench.ask(body(floats(1, 2).tobytes(), "image/x"))) == [102, 104]


def test_processing_in_two_places_is_refused(bench: Bench) -> None:
    bench.write(PROCESSED, model=DOUBLE + "    def preprocess(self, request): ...\n", processing=BOTH)
    assert "processing: the model has its own" in bench.load().detail


def test_a_processing_file_without_either_function_is_refused(bench: Bench) -> None:
    bench.write(PROCESSED, model=DOUBLE, processing="def preproces(request): ...\n")
    assert "processing: processing.py defines no preprocess and no postprocess" in bench.load().detail


def test_the_model_and_its_processing_share_the_modules_they_import(bench: Bench) -> None:
    model = "from . import helper\n" + DOUBLE.replace("return", "helper.CALLS.append(1); return")
    post = "from .helper import CALLS\ndef postprocess(outputs, request): return len(CALLS)\n"
    bench.serve(PROCESSED, model=model, helper="CALLS = []\n", processing=post)
    after_warm_up = json_of(bench.ask(body({"x": [1, 2]})))
    assert json_of(bench.ask(body({"x": [1, 2]}))) == after_warm_up + 1


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("raise ValueError('no photograph')", InvalidInput, "no photograph"),
        ("raise TypeError('no photograph')", InvalidInput, "no photograph"),
        ("raise ValueError", InvalidInput, "ValueError"),
        ("return {}[1]", ModelError, "KeyError: 1"),
        ("raise QueueFull('later')", QueueFull, "later"),
        ("raise SystemExit(2)", ModelError, "SystemExit: 2"),
        ("request.body = b'\\xff'; return request.text()", InvalidInput, "'utf-8' codec can't decode"),
        ("return {'x': [1, 2]}", ModelError, "'x' is of type list, not a tensor"),
        (
            "return torch.ones(2, dtype=torch.int32)",
            ModelError,
            "preprocess: input 'x' must be float32, got int32",
        ),
        ("return {'z': torch.ones(2)}", ModelError, "preprocess: input 'x' is missing"),
        ("return torch.ones(3)", InvalidInput, "input 'x' must have shape [2], got [3]"),
    ],
)
def test_whose_fault_a_failing_preprocess_is(bench: Bench, code: str, error: Any, text: str) -> None:
    processed(bench, f"if b'bad' in request.body: {code}\n    return np.ones(2, 'f4')")
    good, bad = bench.run(body({"x": 1}), body({"bad": 1}))
    assert good.code == 0
    assert (bad.code, text in str(bad.content)) == (error.code, True), bad.content


@pytest.mark.parametrize(
    ("code", "content", "content_type"),
    [
        ("return b'raw'", b"raw", "application/octet-stream"),
        ("return 'tëxt'", "tëxt".encode(), "text/plain; charset=utf-8"),
        ("return Body(b'png', 'image/png')", b"png", "image/png"),
        ("return None", b"null", "application/json"),
        ("return {'y': outputs['y'], 'n': np.float32(1), 's': b'x', 'nan': float('nan')}",
         b'{"y": [2.0, 4.0], "n": 1.0, "s": "x", "nan": NaN}', "application/json"),
        ("return np.array([b'a', b'b'], dtype=object)", b'["a", "b"]', "application/json"),
    ],
)  # fmt: skip
def test_what_a_postprocess_may_return(bench: Bench, code: str, content: bytes, content_type: str) -> None:
    processed(bench, postprocess=code)
    assert bench.ask(body([1, 2])) == (0, content, {"content_type": content_type})


def test_outputs_reach_a_postprocess_as_cpu_tensors_without_the_batch(bench: Bench) -> None:
    processed(
        bench,
        postprocess="return [type(outputs['y']).__name__, str(outputs['y'].device), outputs['y'].shape]",
    )
    assert json_of(bench.ask(body([1, 2]))) == ["Tensor", "cpu", [2]]


@pytest.mark.parametrize("code", ["return {1, 2}", "raise ValueError('a set')"])
def test_a_failing_postprocess_is_the_models_fault_for_that_request_alone(bench: Bench, code: str) -> None:
    processed(bench, postprocess=f"if outputs['y'][0] > 10: {code}\n    return 1")
    good, bad = bench.run(body([1, 2]), body([10, 2]))
    assert (good.code, bad.code) == (0, ModelError.code)
    assert str(bad.content).split(": ")[0] in ("TypeError", "ValueError")


def test_a_multipart_form_has_its_parts(bench: Bench) -> None:
    processed(
        bench,
        "return torch.tensor([float(len(p)) for p in request.parts.values()])",
        "return list(request.parts)",
    )
    packed, options = pack_body(Body(b"", parts={"a": Body(b"1"), "b": Body(b"22", "text/plain")}))
    assert json_of(bench.ask(BatchRequest(1000, 0, options, packed))) == ["a", "b"]


# Without a preprocess.


@pytest.mark.parametrize("data", [{"x": [1, 2.5]}, [1, 2.5]])
@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
def test_json_is_taken_by_name_or_bare_and_answered_by_name(bench: Bench, data: Any, kind: str) -> None:
    bench.serve()
    assert json_of(bench.ask(body(data, kind))) == {"y": [2, 5]}


def test_an_octet_stream_is_the_bytes_of_the_only_input(bench: Bench) -> None:
    bench.serve()
    raw = floats(1, 2).tobytes()
    assert json_of(bench.ask(body(raw, "application/octet-stream"))) == {"y": [2, 4]}
    reply = bench.ask(body(raw[:-1], "application/octet-stream"))
    assert (reply.code, reply.content) == (
        InvalidInput.code,
        "tensor 'x': shape [2] of float32 takes 8 bytes, got 7",
    )


TAKES = "the model takes x (float32 [2])"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (body(b"{", "application/json"), f"the body is not JSON: .*; {TAKES}"),
        (body(b"[" * 100_000, "application/json"), f"the body is not JSON: .*; {TAKES}"),
        (body({"x": [1, 2], "z": 1}), f"there is no input 'z'; {TAKES}"),
        (body({}), f"the request has no tensors; {TAKES}"),
        (body([[1], [1, 2]]), "input 'x' must be a nested list for float32 [2]: .*inhomogeneous"),
        (
            body(["a", "b"]),
            "input 'x' must be a nested list for float32 [2]: its values do not fit in float32",
        ),
        (
            body([None, 1]),
            "input 'x' must be a nested list for float32 [2]: its values do not fit in float32",
        ),
        (body([1, 2, 3]), "input 'x' must have shape [2], got [3]"),
        (body([]), "input 'x' must have shape [2], got [0]"),
        (
            body(b"..", "image/png"),
            f"the model has no preprocess for a body of type 'image/png'; {TAKES}, as JSON or",
        ),
    ],
)
def test_a_body_that_is_not_what_the_model_takes_is_refused_saying_what_it_takes(
    bench: Bench, wrong: BatchRequest, message: str
) -> None:
    bench.serve()
    reply = bench.ask(wrong)
    assert reply.code == InvalidInput.code
    first, _, last = message.partition(".*")
    assert str(reply.content).startswith(first)
    assert last in str(reply.content)


def test_two_inputs_need_their_names(bench: Bench) -> None:
    bench.serve(X + tensor("inputs", "z", "int64", ()), model=DOUBLE.replace("x)", "x, z)"))
    assert json_of(bench.ask(body({"z": 7, "x": [1, 2]})))["output_0"] == [2, 4]
    assert "must be a JSON object with the inputs' names" in str(bench.ask(body([1, 2])).content)
    assert "input 'x' is missing" in str(bench.ask(body({"z": 1})).content)


def test_a_model_without_declared_inputs_takes_no_body(bench: Bench) -> None:
    bench.serve(" ", model=DOUBLE)
    reply = bench.ask(body([1, 2]))
    assert reply.code == InvalidInput.code
    assert str(reply.content).endswith("; the model does not declare its inputs")


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("uint8", [0, 255], [256, 0]),
        ("uint8", [1, True], [-1, 0]),
        ("int64", [1, 2], [1.5, 2]),
        ("uint64", [1, 2**63], [1, 2**64]),
        ("bool", [True, False], [1, 0]),
        ("bfloat16", [1.5, 2], ["a", "b"]),
        ("float16", [1, 1e6], [None, 1]),
        ("bytes", ["a", "ö"], ["a", 1]),
    ],
)
def test_json_values_must_fit_the_declared_dtype(bench: Bench, dtype: str, good: Any, bad: Any) -> None:
    bench.serve(tensor("inputs", "x", dtype), model="class Model:\n    def infer(self, x): return x\n")
    answer = json_of(bench.ask(body(good)))["output_0"]
    assert answer == ([1, np.inf] if dtype == "float16" else good)
    reply = bench.ask(body(bad))
    assert (reply.code, f"input 'x' must be a nested list for {dtype} [2]" in str(reply.content)) == (
        InvalidInput.code,
        True,
    )


def test_json_reply_is_json_for_every_dtype_that_json_knows(bench: Bench) -> None:
    bench.serve()
    assert json.loads(bench.ask(body([1, float("inf")])).content) == {"y": [2, float("inf")]}
