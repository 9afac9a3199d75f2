"""A batch through a model: each request gets its own outcome."""

from __future__ import annotations

import logging

import ml_dtypes
import numpy as np
import pytest

from headway.errors import DeadlineExceeded, InvalidInput, ModelError, TooLarge
from headway.messages import BatchReply
from tests.worker.bench import (
    DOUBLE,
    Bench,
    X,
    floats,
    listed,
    request,
    tensor,
    tensors_of,
)

# Raises for a batch that has a 13 in it, and counts how often it was called.
PICKY = """
class Model:
    calls = 0
    def infer(self, x):
        Model.calls += 1
        if (x == 13).any():
            raise {error}
        return {{"y": x * 2, "calls": x * 0 + Model.calls}}
"""
FOUR = "batch_size_max = 4\n" + X
FINE, GUILTY = request(x=floats(1, 2)), request(x=floats(13, 0))


def codes(replies: list[BatchReply]) -> list[int]:
    return [reply.code for reply in replies]


def calls(bench: Bench) -> float:
    """How often PICKY has been called, this time and warm-up included."""
    return float(bench.outputs(FINE)[0]["calls"][0])


def test_requests_with_and_without_rows_share_a_batch_and_get_their_own_rows(bench: Bench) -> None:
    bench.serve(
        "batch_size_max = 8\n" + X + tensor("outputs", "y") + tensor("outputs", "n", "int64", ()),
        model="""
import torch
class Model:
    def infer(self, x):
        return x * 2, torch.full((len(x),), len(x))
""",
    )
    outputs = bench.outputs(
        request(x=floats(1, 2)),
        request(rows=3, x=floats([3, 4], [5, 6], [7, 8])),
        request(rows=1, x=floats([9, 10])),
    )
    assert [listed(o) for o in outputs] == [
        {"y": [2, 4], "n": 5},
        {"y": [[6, 8], [10, 12], [14, 16]], "n": [5, 5, 5]},
        {"y": [[18, 20]], "n": [5]},
    ]


def test_compute_time_is_the_time_in_the_model(bench: Bench) -> None:
    bench.serve()
    ticks = iter(range(1000))
    bench.runner._clock = lambda: 100 + next(ticks) / 1000
    assert bench.result(FINE).compute_us == 1000


def test_an_expired_request_is_answered_without_running(bench: Bench) -> None:
    bench.serve(FOUR, model=PICKY.format(error="RuntimeError"))
    late = request(timeout_ms=10, x=floats(13, 13))
    result = bench.result(late, request(timeout_ms=5000, x=floats(1, 2)), received=bench.now - 0.5)
    assert codes(result.replies) == [DeadlineExceeded.code, 0]
    assert result.replies[0].content == "its time ran out 490 ms before the model could run it"


def test_a_batch_of_only_expired_requests_does_not_run(bench: Bench) -> None:
    bench.serve(FOUR, model=PICKY.format(error="RuntimeError"))
    before = calls(bench)
    assert bench.result(FINE, received=bench.now - 2).compute_us == 0
    assert calls(bench) == before + 1


@pytest.mark.parametrize("error", ["RuntimeError('bad luck')", "SystemExit('bad luck')"])
def test_one_guilty_request_of_four_gets_the_error_and_the_others_are_answered(
    bench: Bench, error: str
) -> None:
    bench.serve(FOUR, model=PICKY.format(error=error))
    replies = bench.run(FINE, GUILTY, FINE, FINE)
    assert codes(replies) == [0, ModelError.code, 0, 0]
    assert replies[1].content == error.replace("('", ": ").removesuffix("')")
    assert tensors_of(replies[3])["y"].tolist() == [2, 4]


def test_a_model_that_is_not_idempotent_is_not_run_again(bench: Bench) -> None:
    bench.serve("idempotent = false\n" + FOUR, model=PICKY.format(error="RuntimeError('bad luck')"))
    before = calls(bench)
    assert codes(bench.run(FINE, GUILTY)) == [ModelError.code] * 2
    assert calls(bench) == before + 2


def test_a_memory_error_of_a_batch_is_tried_one_by_one(bench: Bench) -> None:
    bench.serve(
        FOUR,
        model="""
import torch
class Model:
    def infer(self, x):
        if len(x) > 1 and x.max() == 2:  # not the examples of warm-up
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return x * 2
""",
    )
    assert codes(bench.run(FINE, FINE, FINE)) == [0, 0, 0]


def test_headways_own_errors_keep_their_codes(bench: Bench) -> None:
    model = "from headway.errors import TooLarge\n" + PICKY.format(error="TooLarge('13 is too large')")
    bench.serve(FOUR, model=model)
    reply = bench.ask(GUILTY)
    assert (reply.code, reply.content) == (TooLarge.code, "13 is too large")


def test_an_exception_that_cannot_be_printed_is_an_error_all_the_same(bench: Bench) -> None:
    model = "class Odd(Exception):\n    def __str__(self): return 1 / 0\n" + PICKY.format(error="Odd")
    bench.serve(FOUR, model=model)
    assert bench.ask(GUILTY).content == "Odd"


def test_each_distinct_exception_is_logged_once_with_its_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(FOUR, model=PICKY.format(error="RuntimeError(f'row {len(x)}')"))
    caplog.set_level(logging.WARNING, "headway.worker")
    bench.run(GUILTY)
    bench.run(GUILTY)
    bench.run(request(rows=2, x=floats([13, 13], [0, 0])))
    assert [r.message for r in caplog.records] == [
        "model m version 1: RuntimeError: row 1",
        "model m version 1: RuntimeError: row 2",
    ]
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (request(x=floats(1, 2).astype("f8")), "input 'x' must be float32, got float64"),
        (request(x=floats(1, 2, 3)), "input 'x' must have shape [2], got [3]"),
        (request(x=floats([1, 2])), "input 'x' must have shape [2], got [1, 2]"),
        (
            request(rows=2, x=floats([1, 2, 3], [1, 2, 3])),
            "input 'x' must have shape [2], got [3] after the rows",
        ),
        (
            request(rows=3, x=floats([1, 2], [1, 2])),
            "input 'x' must have a leading 3 for the request's 3 rows, got shape [2, 2]",
        ),
        (request(z=floats(1, 2)), "input 'x' is missing; the model takes x (float32 [2])"),
        (request(x=floats(1, 2), z=floats(1)), "there is no input 'z'; the model takes x (float32 [2])"),
        (request(), "the request has no tensors; the model takes x (float32 [2])"),
        (FINE._replace(tensors=b"\0"), "packed tensors start with 4 bytes of length, got 1 bytes"),
    ],
)
def test_a_wrong_input_is_refused_by_name_and_the_others_are_answered(
    bench: Bench, wrong: object, message: str
) -> None:
    bench.serve(FOUR, model=DOUBLE)
    replies = bench.run(FINE, wrong, FINE)  # type: ignore[arg-type]
    assert codes(replies) == [0, InvalidInput.code, 0]
    assert replies[1].content == message


def test_without_declared_inputs_rows_are_checked_all_the_same(bench: Bench) -> None:
    bench.serve("batch_size_max = 4\n", model=DOUBLE)
    good, bad, flat = (
        request(rows=1, x=floats([1])),
        request(rows=2, x=floats([1])),
        request(rows=1, x=floats(1)[0:0]),
    )
    replies = bench.run(good, bad, flat)
    assert codes(replies) == [0, InvalidInput.code, InvalidInput.code]
    assert "'x' must have a leading 2" in str(replies[1].content)


def test_requests_of_different_shapes_run_in_groups_of_equal_shape(bench: Bench) -> None:
    count = "return {'y': x, 'rows': x * 0 + len(x)}"
    bench.serve(
        "batch_size_max = 8\n" + tensor("inputs", "x", shape=(-1,)),
        model=DOUBLE.replace("return x * 2", count),
    )
    outputs = bench.outputs(*(request(x=floats(*range(n))) for n in (2, 3, 2, 3, 3)))
    assert [o["y"].tolist() for o in outputs] == [list(map(float, range(n))) for n in (2, 3, 2, 3, 3)]
    assert [o["rows"].max() for o in outputs] == [2, 3, 2, 3, 3]


def test_undeclared_inputs_are_grouped_by_name_and_dtype_too(bench: Bench) -> None:
    model = "class Model:\n    def infer(self, **inputs): return {n: t + t for n, t in inputs.items()}\n"
    bench.serve("batch_size_max = 8\n", model=model)
    one, two = floats(1), np.array([2])
    requests = [request(a=one, b=two), request(b=two, a=one), request(a=two, b=two), request(c=one)]
    assert [listed(o) for o in bench.outputs(*requests)] == [
        {"a": [2.0], "b": [4]},
        {"a": [2.0], "b": [4]},
        {"a": [4], "b": [4]},
        {"c": [2.0]},
    ]


def test_a_model_may_write_into_its_inputs_without_harm_to_a_second_run(bench: Bench) -> None:
    model = PICKY.format(error="RuntimeError").replace("if (x", "x += 1\n        if (x")
    bench.serve(FOUR, model=model)
    replies = bench.run(FINE, request(x=floats(12, 12)))
    assert codes(replies) == [0, ModelError.code]
    assert tensors_of(replies[0])["y"].tolist() == [4, 6]


def test_bfloat16_goes_in_and_comes_out(bench: Bench) -> None:
    bench.serve(tensor("inputs", "x", "bfloat16") + tensor("outputs", "y", "bfloat16"), model=DOUBLE)
    values = np.array([1.5, -3], ml_dtypes.bfloat16)
    y = bench.outputs(request(x=values))[0]["y"]
    assert y.dtype == ml_dtypes.bfloat16
    assert y.tolist() == [3, -6]


def test_bytes_go_in_and_come_out_as_numpy_arrays(bench: Bench) -> None:
    toml = "batch_size_max = 4\n" + tensor("inputs", "x", "bytes", (-1,), "warmup_shape = [2]")
    bench.serve(
        toml + tensor("outputs", "y", "bytes", (-1,)),
        model="""
import numpy as np
class Model:
    def infer(self, x):
        assert type(x) is np.ndarray and x.dtype == object and x.ndim == 2
        return np.array([[e.upper() for e in row] for row in x], dtype=object)
""",
    )
    one, two = np.array([b"a", b"bc"], object), np.array([[b"d"], [b""]], object)
    outputs = bench.outputs(request(x=one), request(rows=2, x=two))
    assert [o["y"].tolist() for o in outputs] == [[b"A", b"BC"], [[b"D"], [b""]]]


def test_strings_of_a_model_travel_as_bytes(bench: Bench) -> None:
    model = "import numpy as np\nclass Model:\n    def infer(self, x): return np.array(['ä'] * len(x))\n"
    bench.serve(X + tensor("outputs", "y", "bytes", ()), model=model)
    assert bench.outputs(FINE)[0]["y"].item() == "ä".encode()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("x.tolist()[0][0]", "'y' is of type float, not a tensor"),
        ("x.to(__import__('torch').complex64)", "'y' is torch.complex64, which does not travel"),
        ("x[:, :1].numpy().astype(object)", "a BYTES tensor holds bytes or str, not float"),
        ("x[:1]", "output 'y' must have a leading 2 for a batch of 2 rows, got shape [1, 2]"),
        ("(x, x)", "the model returned 2 outputs, not y"),
    ],
)
def test_an_output_that_is_no_tensor_of_the_batch_is_the_models_fault(
    bench: Bench, result: str, message: str
) -> None:
    dtype, shape = ("bytes", (1,)) if "object" in result else ("float32", (2,))
    model = f"class Model:\n    def infer(self, x): return {result}\n"
    # No example shape, so that warm-up does not find it first.
    toml = "batch_size_max = 2\n" + tensor("inputs", "x", shape=(-1,)) + tensor("outputs", "y", dtype, shape)
    bench.serve(toml, model=model)
    reply = bench.ask(request(rows=2, x=floats([1, 2], [3, 4])))
    assert reply.code == ModelError.code
    assert message in str(reply.content)


def test_a_model_may_return_numpy_arrays_and_its_own_parameters(bench: Bench) -> None:
    toml = X + tensor("outputs", "a") + tensor("outputs", "b", "float64") + tensor("outputs", "p")
    bench.serve(
        toml,
        model="""
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.ones(1, 2))
    def forward(self, x):
        a = x.numpy().copy(); a.flags.writeable = False
        return {"a": a, "b": a.astype("f8")[:, ::-1], "p": self.p, "not declared": None}
""".replace(', "not declared": None', ""),
    )
    assert listed(bench.outputs(FINE)[0]) == {"a": [1, 2], "b": [2, 1], "p": [1, 1]}


def test_what_a_mapping_has_beyond_the_declared_outputs_is_left_out(bench: Bench) -> None:
    bench.serve(model=DOUBLE.replace("x * 2", "{'y': x, 'hidden': None}"))
    assert list(bench.outputs(FINE)[0]) == ["y"]


PADDED = tensor("inputs", "x", "int64", (-1,), 'pad_value = 9\nmask = "x_mask"\nwarmup_shape = [4]')


def test_padded_requests_share_a_batch_and_the_mask_says_what_is_theirs(bench: Bench) -> None:
    model = "class Model:\n    def infer(self, x, x_mask): return x, x_mask\n"
    bench.serve(
        "batch_size_max = 4\n"
        + PADDED
        + tensor("outputs", "y", "int64", (-1,))
        + tensor("outputs", "mask", "bool", (-1,)),
        model=model,
    )
    outputs = bench.outputs(
        request(x=np.array([1])),
        request(rows=2, x=np.array([[1, 2], [3, 4]])),
        request(x=np.array([5, 6, 7])),
    )
    assert [o["y"].tolist() for o in outputs] == [[1, 9, 9], [[1, 2, 9], [3, 4, 9]], [5, 6, 7]]
    assert [o["mask"].tolist() for o in outputs] == [
        [True, False, False],
        [[True, True, False]] * 2,
        [True, True, True],
    ]
