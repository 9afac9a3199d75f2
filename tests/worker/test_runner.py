"""The runner: orders in, reports out, and nothing that a model does ends it."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from headway.errors import InternalError, ModelError, NotReady
from headway.messages import Batch, Copy, Load, Result, Unload
from headway_worker.faults import DeviceFault
from headway_worker.orders import Report, Run
from headway_worker.runner import DETAIL_CHARS_MAX, Runner
from tests.worker.bench import DOUBLE, Bench, X, Y, body, floats, request, tensor


def states(bench: Bench) -> list[str]:
    return [report.state for report in bench.reports if isinstance(report, Copy)]


def test_a_load_reports_loading_and_then_ready_with_facts(bench: Bench) -> None:
    facts = bench.serve().facts
    assert states(bench) == ["loading", "ready"]
    assert facts["inputs"] == [["x", "float32", [2]]]
    assert facts["outputs"] == [["y", "float32", [2]]]
    assert facts["warmup"] == {"1": 0.0}
    assert facts["load_ms"] == 0.0  # the clock stands
    assert facts["backend"]["name"] == "python"


@pytest.mark.parametrize("error", ["RuntimeError('no weights')", "SystemExit(3)", "KeyboardInterrupt()"])
def test_a_failing_load_is_reported_with_its_traceback_and_the_runner_goes_on(
    bench: Bench, error: str
) -> None:
    bench.write(model=f"class Model:\n    def load(self, folder, device):\n        raise {error}\n")
    copy = bench.load()
    assert copy.state == "failed"
    assert "model.py" in copy.detail
    assert f"raise {error}" in copy.detail
    bench.write_version("2", X + Y, model=DOUBLE)
    assert bench.load("2").state == "ready"


def test_a_traceback_that_is_too_long_keeps_its_end(bench: Bench) -> None:
    bench.write(model="raise ValueError('a' * 100_000 + '\\ud800 the end')\n")
    copy = bench.load()
    assert len(copy.detail) == DETAIL_CHARS_MAX
    assert copy.detail.endswith("the end\n")
    copy.detail.encode()


def test_an_unknown_backend_fails_naming_the_known_ones(bench: Bench) -> None:
    bench.write(backend="keras")
    assert "backend: 'keras' is not known; known are" in bench.load().detail
    assert "exported" in bench.load().detail


def test_a_broken_model_toml_fails_naming_the_key(bench: Bench) -> None:
    bench.write("batch_dealy_ms = 1\n")
    assert "batch_dealy_ms is not known" in bench.load().detail


def test_a_folder_that_is_not_there_fails(bench: Bench) -> None:
    assert "No such file" in bench.load().detail


def test_a_model_that_wants_another_device_fails(bench: Bench) -> None:
    bench.write('device = "cuda"\n' + X, model=DOUBLE)
    assert "device: the model wants cuda, this worker runs on cpu" in bench.load().detail


def test_a_folder_of_another_name_serves_under_the_brokers_name(bench: Bench) -> None:
    folder = bench.write(model=DOUBLE)
    other = bench.store / "other" / "9"
    other.parent.mkdir()
    folder.rename(other)
    assert bench.load(folder=other).state == "ready"
    assert bench.outputs(request(x=floats(1, 2)))[0]["y"].tolist() == [2, 4]


def test_an_unload_frees_the_copy_and_its_modules(bench: Bench) -> None:
    model = """
from . import helper
class Model:
    def infer(self, x): return x
    def close(self): helper.note(__file__)
"""
    helper = "from pathlib import Path\ndef note(file): Path(file).with_name('closed').touch()\n"
    before = set(sys.modules)
    bench.serve(model=model, helper=helper)
    assert any(name.endswith(".helper") for name in set(sys.modules) - before)
    assert bench.unload().state == "gone"
    assert not [name for name in set(sys.modules) - before if name.startswith("headway_model_")]
    assert (bench.store / "m" / "1" / "closed").exists()
    assert bench.ask(request(x=floats(1, 2))).code == NotReady.code


def test_a_model_that_will_not_close_is_gone_all_the_same(bench: Bench) -> None:
    bench.serve(model=DOUBLE + "    def close(self): raise RuntimeError('no')\n")
    assert bench.unload().state == "gone"


def test_an_unload_of_what_is_not_there_is_gone(bench: Bench) -> None:
    assert bench.unload() == Copy("m", "1", "gone", "", {})


def test_a_second_load_reads_the_files_again(bench: Bench) -> None:
    bench.serve()
    bench.serve(model=DOUBLE.replace("* 2", "* 1000"))
    assert bench.outputs(request(x=floats(1, 2)))[0]["y"].tolist() == [1000, 2000]


def test_two_versions_are_served_side_by_side_with_their_own_helpers(bench: Bench) -> None:
    model = "from .helper import FACTOR\n" + DOUBLE.replace("* 2", "* FACTOR")
    for version, factor in (("1", 3), ("2", 5)):
        bench.write_version(version, X + Y, model=model, helper=f"FACTOR = {factor}\n")
        assert bench.load(version).state == "ready"
    assert bench.outputs(request(x=floats(1, 1)), version="1")[0]["y"].tolist() == [3, 3]
    assert bench.outputs(request(x=floats(1, 1)), version="2")[0]["y"].tolist() == [5, 5]


def test_a_batch_for_a_model_that_is_not_loaded_is_not_ready(bench: Bench) -> None:
    replies = bench.run(request(x=floats(1)), request(x=floats(1)))
    assert [reply.code for reply in replies] == [NotReady.code] * 2
    assert replies[0].content == "model m version 1 is not loaded here"


def test_a_defect_of_ours_answers_the_batch_as_such(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.serve()
    nonsense = request(x=floats(1, 2))._replace(timeout_ms=None)  # the wire would not let it pass
    assert bench.ask(nonsense).code == InternalError.code
    assert "TypeError" in caplog.text
    assert bench.runner.running is None


def test_running_says_which_batch_and_since_when_only_while_it_runs(bench: Bench) -> None:
    bench.serve()
    seen = []
    bench.runner._clock = lambda: (seen.append(bench.runner.running), 42.0)[1]
    bench.result(request(x=floats(1, 2)), received=42.0)
    assert seen[0] is None
    assert set(seen[1:]) == {(7, 42.0)}
    assert bench.runner.running is None


def test_a_thread_obeys_in_order_until_it_is_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    folder = bench.write(model=DOUBLE)
    reports: list[Report] = []
    done = threading.Event()

    def report(what: Report) -> None:
        reports.append(what)
        if isinstance(what, Copy) and what.state == "gone":
            done.set()

    runner = Runner(torch.device("cpu"), report, lambda: 0.0)
    thread = threading.Thread(target=runner.run)
    runner.put(Load("m", "1", str(folder)))
    runner.put(Run(Batch(1, "m", "1", 1000, [request(x=floats(1, 2))]), 0.0))
    runner.put(Unload("m", "1"))
    thread.start()
    assert done.wait(30)
    runner.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert [type(r) for r in reports] == [Copy, Copy, Result, Copy]


def test_what_waits_when_the_runner_is_stopped_is_left() -> None:
    reports: list[Report] = []
    runner = Runner(torch.device("cpu"), reports.append, lambda: 0.0)
    runner.put(Unload("m", "1"))
    runner.stop()
    runner.run()
    assert reports == []


# ---- a broken device

BROKEN = """
import torch
class Model:
    def preprocess(self, request): return self.look(torch.tensor(float(request.body)), 3)
    def infer(self, x): return self.look(x * 2, 4)
    def postprocess(self, outputs, request): return self.look(outputs["y"], 10).tolist()
    def look(self, x, bad):
        if x.max() == bad:
            error = torch.AcceleratorError("CUDA error: device-side assert triggered\\n...")
            error.error_code = 710
            try:
                raise error
            except RuntimeError as cause:
                raise ValueError("the model's own words") from cause
        return x
"""
ONE = tensor("inputs", "x", shape=()) + tensor("outputs", "y", shape=())


@pytest.mark.parametrize("x", [3.0, 2.0, 5.0], ids=["preprocess", "infer", "postprocess"])
def test_a_fault_of_the_device_ends_the_run_and_answers_nobody(bench: Bench, x: float) -> None:
    bench.serve("batch_size_max = 4\n" + ONE, model=BROKEN)
    told = len(bench.reports)
    requests = [body(1.0), body(x), body(1.0)]
    for number in (1, 2):
        bench.runner.put(Run(Batch(number, "m", "1", 1000, requests), bench.now))
    with pytest.raises(DeviceFault, match=r"^CUDA error: device-side assert triggered$"):
        bench.runner.run()
    assert bench.reports[told:] == []


def test_after_a_fault_of_a_batch_its_requests_are_not_run_again_one_by_one(bench: Bench) -> None:
    bench.serve("batch_size_max = 4\n" + ONE, model=BROKEN.replace("x.max() == bad", "x.shape == (3,)"))
    bench.runner.put(Run(Batch(1, "m", "1", 1000, [body(1.0)] * 3), bench.now))
    with pytest.raises(DeviceFault):
        bench.runner.run()


def test_a_fault_found_by_the_decoder_is_raised_in_the_runners_thread(bench: Bench) -> None:
    slow = BROKEN.replace("def infer(self, x): ", "def infer(self, x):\n        time.sleep(0.02)\n        ")
    bench.runner._clock = time.monotonic
    bench.serve(ONE, model="import time\n" + slow)
    told = len(bench.reports)
    for number, x in enumerate((1.0, 3.0, 1.0)):
        bench.runner.put(Run(Batch(number, "m", "1", 1000, [body(x)]), time.monotonic()))
    with pytest.raises(DeviceFault):
        bench.runner.run()
    assert [report.batch for report in bench.reports[told:] if isinstance(report, Result)] == [0]


def test_a_fault_at_a_load_is_reported_as_its_failure_before_the_run_ends(bench: Bench) -> None:
    bench.write(ONE, model=BROKEN.replace("== bad", "== 2"))  # a warm-up's ones, doubled
    bench.runner.put(Load("m", "1", str(bench.store / "m" / "1")))
    with pytest.raises(DeviceFault):
        bench.runner.run()
    assert states(bench) == ["loading", "failed"]
    assert "device-side assert triggered" in bench.reports[-1].detail


def test_what_is_no_fault_of_the_device_is_the_models_error(bench: Bench) -> None:
    model = DOUBLE.replace("return x * 2", "raise RuntimeError('cuda is a word')")
    bench.write("", model=model)
    assert bench.load().state == "ready"
    assert bench.ask(request(x=floats(1))).code == ModelError.code
