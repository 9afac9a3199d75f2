"""Half precision and memory formats: what the model gets, and what callers see. All on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.worker.bench import Bench, floats, request, tensor

NET = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(2, 2)
        torch.nn.init.eye_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)
    def forward(self, x, n):
        assert x.dtype == self.line.weight.dtype == torch.bfloat16, x.dtype
        assert n.dtype == torch.int64
        return {"y": self.line(x), "n": n + 1}
"""
INPUTS = tensor("inputs", "x") + tensor("inputs", "n", "int64", ())
HALF = 'precision = "bfloat16"\nbatch_size_max = 4\n'
IMAGES = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = torch.nn.Conv2d(3, 4, 3)
    def forward(self, x):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert self.convolve.weight.is_contiguous(memory_format=torch.channels_last)
        return self.convolve(x)
"""
IMAGE = tensor("inputs", "x", shape=(3, 8, 8))


def scripted(bench: Bench, module: torch.nn.Module, toml: str, example: torch.Tensor) -> None:
    folder = bench.write(toml, backend="torchscript")
    torch.jit.save(torch.jit.trace(module.eval(), example), folder / "model.pt")


def ask(bench: Bench) -> dict:
    return bench.outputs(request(x=floats(1, 257), n=floats(1).astype("i8")[0]))[0]


@pytest.mark.parametrize("declared", ["float32", "float64", "bfloat16"])
def test_a_module_runs_in_half_precision_and_answers_in_the_declared_dtype(
    bench: Bench, declared: str
) -> None:
    outputs = tensor("outputs", "y", declared) + tensor("outputs", "n", "int64", ())
    bench.serve(HALF + INPUTS + outputs, model=NET)
    made = ask(bench)
    assert made["y"].dtype.name == declared
    assert made["y"].tolist() == [1, 256]  # bfloat16 has 8 bits
    assert made["n"] == 2


def test_undeclared_outputs_are_float32(bench: Bench) -> None:
    bench.serve(HALF + INPUTS, model=NET)
    assert ask(bench)["y"].dtype == "float32"


def test_a_mask_is_not_cast(bench: Bench) -> None:
    model = """
import torch
class Model(torch.nn.Module):
    def forward(self, x, m):
        assert (x.dtype, m.dtype) == (torch.bfloat16, torch.bool)
        return (x * m).sum(1)
"""
    more = 'pad_value = 5\nmask = "m"\nwarmup_shape = [3]'
    bench.serve(HALF + tensor("inputs", "x", shape=(-1,), more=more), model=model)
    replies = bench.outputs(request(x=floats(1, 2, 3)), request(x=floats(4)))
    assert [reply["output_0"].item() for reply in replies] == [6, 4]


def test_torchscript_runs_in_half_precision(bench: Bench) -> None:
    line = torch.nn.Linear(2, 2)
    scripted(bench, line, HALF + tensor("inputs", "input") + tensor("outputs", "y"), torch.ones(1, 2))
    assert bench.load().state == "ready"
    made = bench.outputs(request(input=floats(1, 2)))[0]["y"]
    exact = line(torch.tensor([1.0, 2.0])).detach().numpy()
    assert abs(made - exact).max() < 0.05
    assert torch.equal(torch.tensor(made), torch.tensor(made).to(torch.bfloat16).float())


def test_weights_and_images_are_channels_last(bench: Bench) -> None:
    bench.serve("channels_last = true\nbatch_size_max = 4\n" + IMAGE, model=IMAGES)
    (made,) = bench.outputs(request(x=floats(*range(192)).reshape(3, 8, 8)))
    assert made["output_0"].shape == (4, 6, 6)


def test_channels_last_changes_no_result(bench: Bench) -> None:
    model = torch.nn.Conv2d(3, 4, 3)
    image = torch.rand(3, 8, 8)
    toml = "channels_last = true\n" + tensor("inputs", "input", shape=(3, 8, 8))
    scripted(bench, model, toml + tensor("outputs", "y", shape=(4, 6, 6)), image[None])
    assert bench.load().state == "ready"
    made = bench.outputs(request(input=image.numpy()))[0]["y"]
    assert torch.allclose(torch.tensor(made), model(image[None])[0], atol=1e-5)


@pytest.mark.parametrize("key", ['precision = "float16"\n', "channels_last = true\n"])
def test_backends_that_cannot_change_a_model_refuse_by_name(bench: Bench, key: str) -> None:
    name = key.partition(" ")[0]
    bench.write(key, model="class Model:\n    def infer(self, x): return x\n")
    assert f"{name}" in bench.load().detail and "is no torch.nn.Module" in bench.load().detail
    folder = bench.write(key + tensor("inputs", "x"), backend="exported")
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, folder / "model.pt2")
    detail = bench.load().detail
    assert f"{name}" in detail and "the program was exported for its dtypes" in detail
