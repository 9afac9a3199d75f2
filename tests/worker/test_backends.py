"""The backends, each with a real model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.worker.bench import DOUBLE, Bench, X, Y, floats, listed, request, tensor

BATCH = torch.export.Dim("batch", min=1, max=64)
TWO = X + tensor("inputs", "z") + tensor("outputs", "sum") + tensor("outputs", "difference")
SWAPPED = tensor("inputs", "z") + X


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * self.weight + z, x - z


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network, exported with positional and with keyword arguments, and with a fixed batch size."""
    folder, dims = tmp_path_factory.mktemp("exported"), {0: BATCH}
    x, z = torch.ones(2, 2), torch.ones(2, 2)  # two: one tensor twice would be exported as one input
    programs = {
        "positional": torch.export.export(Net(), (x, z), dynamic_shapes=(dims, dims)),
        "keyword": torch.export.export(Net(), (x,), {"z": z}, dynamic_shapes={"x": dims, "z": dims}),
        "fixed": torch.export.export(Net(), (x, z)),
    }
    for name, program in programs.items():
        torch.export.save(program, folder / f"{name}.pt2")
    return {name: folder / f"{name}.pt2" for name in programs}


def put(bench: Bench, backend: str, toml: str, source: Path | None = None, name: str = "model.pt2") -> None:
    folder = bench.write("batch_size_max = 4\n" + toml, backend=backend)
    if source:
        (folder / name).write_bytes(source.read_bytes())


ASKED = [request(x=floats(1, 2), z=floats(10, 20)), request(rows=1, x=floats([3, 4]), z=floats([30, 40]))]
ANSWERED = [
    {"sum": [11, 22], "difference": [-9, -18]},
    {"sum": [[33, 44]], "difference": [[-27, -36]]},
]


@pytest.mark.parametrize("how", ["positional", "keyword"])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_exported_program_gets_its_inputs_by_name_whatever_their_order(
    bench: Bench, exported: dict[str, Path], how: str, swapped: bool
) -> None:
    put(bench, "exported", TWO.replace(X + tensor("inputs", "z"), SWAPPED) if swapped else TWO, exported[how])
    copy = bench.load()
    assert copy.state == "ready", copy.detail
    assert copy.facts["backend"] == {"name": "exported", "kind": "torch.export", "arguments": "x, z"}
    assert [listed(o) for o in bench.outputs(*ASKED)] == ANSWERED


def test_inputs_of_other_names_go_in_the_declared_order(bench: Bench, exported: dict[str, Path]) -> None:
    put(bench, "exported", tensor("inputs", "first") + tensor("inputs", "second"), exported["positional"])
    assert bench.load().state == "ready"
    outputs = bench.outputs(request(second=floats(1, 1), first=floats(5, 5)))
    assert listed(outputs[0]) == {"output_0": [6, 6], "output_1": [4, 4]}


def test_a_program_of_one_batch_size_fails_at_load(bench: Bench, exported: dict[str, Path]) -> None:
    put(bench, "exported", TWO, exported["fixed"])
    copy = bench.load()
    assert copy.state == "failed"
    assert "x.size()[0] == 2" in copy.detail


def test_too_few_declared_inputs_fail_naming_the_arguments(bench: Bench, exported: dict[str, Path]) -> None:
    put(bench, "exported", X, exported["positional"])
    assert "the program takes x, z, got x" in bench.load().detail


def test_torchscript_is_served(bench: Bench, tmp_path: Path) -> None:
    torch.jit.script(Net()).save(str(tmp_path / "net.pt"))
    put(
        bench, "torchscript", TWO.replace(X + tensor("inputs", "z"), SWAPPED), tmp_path / "net.pt", "model.pt"
    )
    copy = bench.load()
    assert copy.state == "ready", copy.detail
    assert copy.facts["backend"]["arguments"] == "x, z"
    assert [listed(o) for o in bench.outputs(*ASKED)] == ANSWERED


@pytest.mark.parametrize(
    ("backend", "file"), [("exported", "model.pt2"), ("torchscript", "model.pt"), ("python", "model.py")]
)
def test_a_model_without_its_file_fails_naming_it(bench: Bench, backend: str, file: str) -> None:
    put(bench, backend, X)
    assert f"there is no {file} in" in bench.load().detail


@pytest.mark.parametrize("backend", ["exported", "torchscript", "python"])
def test_an_unknown_option_is_refused_by_name(bench: Bench, backend: str) -> None:
    put(bench, backend, "[options]\nclas = 1\n")
    assert f"options.clas is not known to backend '{backend}'; known: " in bench.load().detail


@pytest.mark.parametrize("backend", ["exported", "torchscript"])
def test_bytes_are_refused_where_only_tensors_can_go(bench: Bench, backend: str) -> None:
    put(bench, backend, X + tensor("inputs", "name", "bytes"))
    assert f"inputs[1].dtype: backend '{backend}' takes no bytes (name)" in bench.load().detail


MODULE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)
    def load(self, folder, device):
        self.register_buffer("scale", torch.load(folder / "scale.pt", weights_only=True))
        self.where = str(device)
    def forward(self, x):
        assert self.where == "cpu" and torch.is_inference_mode_enabled()
        return self.drop(x) * self.scale
"""


def test_a_torch_module_is_loaded_from_its_folder_and_evaluated(bench: Bench) -> None:
    folder = bench.write(X + Y + '[options]\nclass = "Net"\n', model=MODULE)
    torch.save(torch.tensor(3.0), folder / "scale.pt")
    copy = bench.load()
    assert copy.state == "ready", copy.detail
    assert copy.facts["backend"]["kind"] == "Python class Net"
    assert listed(bench.outputs(request(x=floats(1, 2)))[0]) == {"y": [3, 6]}


def test_a_file_in_a_folder_of_its_own_imports_relatively(bench: Bench) -> None:
    folder = bench.write('file = "source/net.py"\n' + X)
    (folder / "source").mkdir()
    (folder / "source" / "net.py").write_text(
        "from ..top import F\nfrom .near import G\n" + DOUBLE.replace("2", "F * G")
    )
    (folder / "top.py").write_text("F = 3\n")
    (folder / "source" / "near.py").write_text("G = 5\n")
    assert bench.load().state == "ready"
    assert listed(bench.outputs(request(x=floats(1, 2)))[0]) == {"output_0": [15, 30]}


def test_a_models_own_warm_up_runs_before_it_is_ready(bench: Bench) -> None:
    bench.serve("", model=DOUBLE.replace("* 2", "* self.f") + "    def warmup(self): self.f = 7\n")
    assert listed(bench.outputs(request(x=floats(1, 2)))[0]) == {"output_0": [7, 14]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Model = 3\n", "options.class: there is no class 'Model' in model.py"),
        ("class Model: pass\n", "options.class: Model has no method infer and is no torch.nn.Module"),
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
    ],
)
def test_a_python_file_without_a_model_fails_with_the_reason(bench: Bench, text: str, reason: str) -> None:
    bench.write(X, model=text)
    assert reason in bench.load().detail


# backend = "eager" runs dynamo and no C++ compiler: the compiler is torch's matter, and takes a minute.
@pytest.mark.parametrize("option", ['{backend = "eager"}', '{backend = "eager", dynamic = true}'])
def test_a_class_can_be_compiled(bench: Bench, option: str) -> None:
    model = DOUBLE.replace("return x * 2", "return x * (2 if torch.compiler.is_compiling() else 3)")
    toml = "batch_size_max = 4\n" + X + Y + f"[options]\ncompile = {option}\n"
    assert bench.serve(toml, model="import torch\n" + model).facts["backend"]["compiled"]
    outputs = bench.outputs(*[request(x=floats(1, 2))] * 3)
    assert [listed(o) for o in outputs] == [{"y": [2, 4]}] * 3


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("3", "options.compile must be true, false, a mode or a table"),
        ("{bakend = 1}", "options.compile.bakend is not known; known are backend, mode"),
        ('"warp"', "Unrecognized mode=warp"),
    ],
)
def test_a_wrong_compile_option_fails_with_the_reason(bench: Bench, option: str, reason: str) -> None:
    bench.write(X + Y + f"[options]\ncompile = {option}\n", model=DOUBLE)
    assert reason in bench.load().detail


@pytest.mark.parametrize("option", ['"reduce-overhead"', '{mode = "max-autotune"}'])
def test_graphs_of_the_compilers_own_are_refused_beside_cuda_graphs(bench: Bench, option: str) -> None:
    bench.write(f"cuda_graphs = true\n{X}{Y}[options]\ncompile = {option}\n", model=DOUBLE)
    assert "cuda_graphs: options.compile has CUDA graphs of its own in this mode" in bench.load().detail


def test_cuda_graphs_mean_nothing_on_the_cpu(bench: Bench) -> None:
    copy = bench.serve("cuda_graphs = true\nbatch_size_max = 4\n" + X + Y, model=DOUBLE)
    assert "cuda_graphs" not in copy.facts
    assert bench.outputs(request(x=floats(1, 2)))[0]["y"].tolist() == [2, 4]


def test_an_eager_class_is_not_compiled(bench: Bench) -> None:
    copy = bench.serve(X + Y + "[options]\ncompile = false\n", model=DOUBLE)
    assert not copy.facts["backend"]["compiled"]
