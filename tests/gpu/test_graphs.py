"""Real CUDA graphs: replayed for the sizes that were captured, and never in the way of a model that
cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.gpu.conftest import OnGpu
from tests.worker.bench import X, Y, floats, request, tensor, tensors_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GRAPHS = "cuda_graphs = true\nbatch_size_max = 4\n"
# Counts its calls on the host, which a replay does not do.
COUNTING = """
class Model:
    calls = 0
    def infer(self, x):
        Model.calls += 1
        return x * 2, x * 0 + Model.calls
"""
CALLS = tensor("outputs", "calls")


def ask(on_gpu: OnGpu, *rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    on_gpu.put(1, *(request(timeout_ms=60_000, x=row) for row in rows))
    return [tensors_of(reply) for reply in on_gpu.result().replies]


def test_a_captured_model_is_not_called_again(on_gpu: OnGpu) -> None:
    copy = on_gpu.load(GRAPHS + X + Y + CALLS, COUNTING)
    assert copy.facts["cuda_graphs"] == "captured for 3 sizes"
    first, second = ask(on_gpu, floats(1, 2))[0], ask(on_gpu, floats(3, 4))[0]
    assert (first["y"].tolist(), second["y"].tolist()) == ([2, 4], [6, 8])
    assert first["calls"].tolist() == second["calls"].tolist()
    three = ask(on_gpu, floats(1, 1), floats(2, 2), floats(3, 3))  # replayed with a row of padding
    assert [answer["y"][0] for answer in three] == [2, 4, 6]


@pytest.mark.parametrize(
    "line",
    ["if x.sum().item() > 1e9: raise ValueError", "x = x[x[:, 0].nonzero()[:, 0] * 0]", "x.cpu()"],
)
def test_a_model_that_cannot_be_captured_runs_eagerly(on_gpu: OnGpu, line: str) -> None:
    model = f"class Model:\n    def infer(self, x):\n        {line}\n        return x * 2\n"
    copy = on_gpu.load(GRAPHS + X + Y, model)
    assert str(copy.facts["cuda_graphs"]).startswith("not captured: ")
    assert ask(on_gpu, floats(1, 2))[0]["y"].tolist() == [2, 4]
    assert (
        on_gpu.load(GRAPHS + X + Y + CALLS, COUNTING, version="2").facts["cuda_graphs"].startswith("captured")
    ), "a capture that broke off must not spoil the next model's"


def test_open_shapes_are_replayed_where_they_are_those_of_warm_up(on_gpu: OnGpu) -> None:
    x = tensor("inputs", "x", shape=(-1,), more="warmup_shape = [3]")
    on_gpu.load(GRAPHS + x, COUNTING.replace("x * 2, ", ""))
    (captured,), (again,) = ask(on_gpu, floats(1, 2, 3)), ask(on_gpu, floats(4, 5, 6))
    (eager,), (later,) = ask(on_gpu, floats(1, 2)), ask(on_gpu, floats(1, 2))
    assert captured["output_0"][0] == again["output_0"][0]
    assert later["output_0"][0] == eager["output_0"][0] + 1
    assert eager["output_0"].shape == (2,)


def test_compiled_graphs_are_refused_beside_ours(on_gpu: OnGpu) -> None:
    with pytest.raises(AssertionError, match=r"cuda_graphs: options\.compile has CUDA graphs of its own"):
        on_gpu.load(GRAPHS + X + Y + '[options]\ncompile = "reduce-overhead"\n', COUNTING)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_answers_for_every_bucket(on_gpu: OnGpu, mode: str) -> None:
    pytest.importorskip("triton")
    model = """
import torch
class Model(torch.nn.Module):
    def forward(self, x): return torch.nn.functional.gelu(x) * 2
"""
    on_gpu.load(f'batch_size_max = 4\n{X}{Y}[options]\ncompile = "{mode}"\n', model)
    for number in range(12):
        on_gpu.put(number, *(request(timeout_ms=60_000, x=floats(number, i)) for i in range(1 + number % 4)))
    for number in range(12):
        for i, reply in enumerate(on_gpu.result().replies):
            want = torch.nn.functional.gelu(torch.tensor([float(number), float(i)])) * 2
            assert np.allclose(tensors_of(reply)["y"], want.numpy(), atol=1e-4)
