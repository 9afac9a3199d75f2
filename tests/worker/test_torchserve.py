"""Backend `torchserve`: archives as their authors made them, through a real runner."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headway.body import Body
from headway.errors import InvalidInput, ModelError, TooLarge
from headway.headers import packed
from headway.messages import BatchReply, Piece, Replies, Reply
from headway.torchserve.metrics import Record, unpacked
from headway.wire import encode
from headway_worker import replies
from headway_worker.torchserve import scratch
from tests.worker.archives import archived, asking, needs_archiver, part, place
from tests.worker.bench import Bench, X, floats, request, tensors_of

pytestmark = needs_archiver
BATCHED = "batch_size_max = 4\n"

ECHO = """
    class Echo:
        def initialize(self, context):
            self.prefix = "echo "
        def handle(self, data, context):
            return [self.prefix + repr(row) for row in data]
"""


@pytest.fixture(autouse=True)
def _nothing_is_left(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever a test does: after an unload no file, no module, no path of an archive's is left."""
    here = tmp_path / "unpacked"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    paths, finders, folder = list(sys.path), list(sys.meta_path), Path.cwd()
    modules = {name for name in sys.modules if name.partition(".")[0] in ("ts", "common", "handler", "model")}
    yield
    for version in ("1", "2"):
        bench.unload(version)
    assert list(here.glob(f"{scratch.PREFIX}*")) == []
    assert (sys.path, sys.meta_path, Path.cwd()) == (paths, finders, folder)
    left = {name for name in sys.modules if name.partition(".")[0] in ("ts", "common", "handler", "model")}
    assert left == modules


def ready(bench: Bench, archive: Path, toml: str = "", version: str = "1") -> dict[str, Any]:
    place(bench, archive, toml, version)
    copy = bench.load(version)
    assert copy.state == "ready", copy.detail
    return copy.facts


def served(bench: Bench, source: str, toml: str = "", **options: str) -> dict[str, Any]:
    """An archive with one handler, loaded."""
    files = {"handler.py": source}
    return ready(bench, archived(bench.store, "handler.py", files, **options), toml)


def failed(bench: Bench, source: str, toml: str = "", **options: str) -> str:
    place(bench, archived(bench.store, "handler.py", {"handler.py": source}, **options), toml)
    copy = bench.load()
    assert copy.state == "failed"
    return copy.detail


def said(reply: BatchReply) -> str:
    assert reply.code == 0, reply.content
    assert isinstance(reply.content, bytes)
    return reply.content.decode()


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_every_form_of_the_archivers_is_served(bench: Bench, form: str) -> None:
    facts = served(bench, ECHO, form=form)
    kind = {"tgz": "tar.gz", "no-archive": "folder"}.get(form, "zip")
    assert facts["backend"] == {
        "name": "torchserve",
        "kind": f"TorchServe archive ({kind})",
        "handler": "handler.py",
        "archive": "m 1.0",
    }
    assert said(bench.ask(asking("hi", **{}))) == "echo {'body': bytearray(b'hi')}"


def test_a_plain_folder_with_an_old_manifest_is_served_where_it_is(bench: Bench) -> None:
    folder = bench.store / "m" / "1" / "old"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "service.py").write_text("def handle(data, context):\n    return data and [context.manifest]\n")
    manifest = {
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
        "runtime": "python",
        "model": {"modelName": "old", "handler": "service.py:handle", "modelVersion": 1},
    }
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    bench.write('file = "old"\n', backend="torchserve")
    copy = bench.load()
    assert copy.state == "ready", copy.detail
    assert copy.facts["backend"]["archive"] == "old 1"
    seen = json.loads(said(bench.ask(asking("x"))))
    assert seen["specificationVersion"] == "1.0"
    bench.unload()
    assert (folder / "service.py").is_file()


def test_an_archive_without_a_manifest_is_named_after_its_file_and_takes_the_operators_handler(
    bench: Bench,
) -> None:
    path = bench.store / "bare.mar"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("mine.py", "def go(data, context):\n    return data and [context.model_name]\n")
    place(bench, path)
    assert "the archive's manifest names none" in bench.load().detail
    facts = ready(bench, path, '[options]\nhandler = "mine:go"\n')
    assert facts["backend"]["archive"] == "bare 1.0"
    assert said(bench.ask(asking("x"))) == "m"  # as registered: the manifest's name is for the archive


COMMON = """
    import common, helper
    class Handler:
        def initialize(self, context):
            pass
        def handle(self, data, context):
            import late
            from importlib import import_module
            assert import_module("common") is common and common.__name__ == "common"
            return [f"{common.WHO} {helper.WHO} {late.WHO}"] * len(data)
"""


def who(name: str) -> dict[str, str | bytes]:
    files = {f"{file}.py": f"WHO = '{name}'\n" for file in ("common", "helper", "late")}
    return {"common.py": files["common.py"], "helper.py": files["helper.py"], "late.py": files["late.py"]}


def test_two_archives_with_files_of_the_same_names_do_not_meet(bench: Bench) -> None:
    for version, name in (("1", "red"), ("2", "blue")):
        files = {"handler.py": COMMON, **who(name)}
        extra = "common.py,helper.py,late.py"
        ready(
            bench, archived(bench.store, "handler.py", files, name=name, extra_files=extra), version=version
        )
    for _ in range(2):
        assert said(bench.ask(asking("x"), "1")) == "red red red"
        assert said(bench.ask(asking("x"), "2")) == "blue blue blue"


def test_a_handler_called_common_is_loaded_twice_with_different_content(bench: Bench) -> None:
    for version, name in (("1", "red"), ("2", "blue")):
        source = f"def handle(data, context):\n    return data and ['{name}'] * len(data)\n"
        ready(bench, archived(bench.store, "common.py", {"common.py": source}, name=name), version=version)
    assert [said(bench.ask(asking("x"), version)) for version in "121"] == ["red", "blue", "red"]


def test_others_modules_of_the_same_name_are_put_aside_and_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "helper.py").write_text("WHO = 'everybody'\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(tmp_path / "site"))
        helper = importlib.import_module("helper")
    files = {"handler.py": COMMON, **who("red")}
    ready(bench, archived(bench.store, "handler.py", files, extra_files="common.py,helper.py,late.py"))
    assert said(bench.ask(asking("x"))) == "red red red"
    assert sys.modules.pop("helper") is helper
    assert helper.WHO == "everybody"


def test_ts_is_there_for_archives_only(bench: Bench) -> None:
    source = """
        import sys, os
        from ts.torch_handler.base_handler import BaseHandler
        import ts.context
        class Handler(BaseHandler):
            def initialize(self, context):
                assert isinstance(context, ts.context.Context)
                assert sys.modules["ts.torch_handler.base_handler"].BaseHandler is BaseHandler
                self.initialized = True
                assert os.path.samefile(os.getcwd(), context.system_properties["model_dir"])
            def handle(self, data, context):
                from ts.utils.util import map_class_to_label
                assert os.path.isfile("handler.py")
                return map_class_to_label([[0.5, 0.25]] * len(data))
    """
    served(bench, source)
    assert json.loads(said(bench.ask(asking("x")))) == {"0": 0.5, "1": 0.25}
    with pytest.raises(ModuleNotFoundError):
        __import__("ts")


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (part(b"\xff\x00"), {"body": "bytearray"}),
        (part(b""), {"body": "bytearray"}),
        (part('{"a": 1}', "application/json; charset=utf-8"), {"body": "dict"}),
        (part('{"a": ', "application/json"), {"body": "bytearray"}),
        (part("words", "text/plain"), {"body": "str"}),
        (part(b"\xff\x00", "text/plain"), {"body": "bytearray"}),
        (part("a=1&b=%20&a=2", "application/x-www-form-urlencoded"), {"a": "bytearray", "b": "bytearray"}),
        (
            Body(b"1", "", {"x": part("1", "application/json"), "y": part("1")}),
            {"x": "int", "y": "bytearray"},
        ),
    ],
)
def test_data_come_in_the_forms_that_handlers_know(bench: Bench, body: Body, seen: dict[str, str]) -> None:
    source = """
        def handle(data, context):
            return data and [{key: type(value).__name__ for key, value in row.items()} for row in data]
    """
    served(bench, source)
    assert json.loads(said(bench.ask(asking(body)))) == seen


def test_of_a_form_field_that_comes_twice_the_last_counts(bench: Bench) -> None:
    served(bench, ECHO)
    body = part("a=1&a=2", "application/x-www-form-urlencoded")
    assert said(bench.ask(asking(body))) == "echo {'a': bytearray(b'2')}"


def test_decoding_can_be_left_to_the_handler(bench: Bench) -> None:
    served(bench, ECHO, "[options]\ndecode_input = false\n")
    assert said(bench.ask(asking(part("[1]", "application/json")))) == "echo {'body': bytearray(b'[1]')}"


RETURNS = """
    import torch
    def handle(data, context):
        return data and [eval(row["body"].decode()) for row in data]
"""


@pytest.mark.parametrize(
    ("text", "content", "kind"),
    [
        ("b'raw'", b"raw", "application/octet-stream"),
        ("'text'", b"text", "text/plain; charset=utf-8"),
        ("[1, 'b']", b'[\n  1,\n  "b"\n]', "application/json"),
        ("{'a': None}", b'{\n  "a": null\n}', "application/json"),
        ("None", b"null", "application/json"),
        ("3.5", b"3.5", "application/json"),
    ],
)
def test_results_become_bodies_by_their_types(bench: Bench, text: str, content: bytes, kind: str) -> None:
    served(bench, RETURNS)
    assert bench.ask(asking(text)) == BatchReply(0, content, {"content_type": kind})


def test_a_tensor_is_answered_as_torch_saves_it(bench: Bench) -> None:
    served(bench, RETURNS)
    reply = bench.ask(asking("torch.tensor([1., 2.])"))
    assert isinstance(reply.content, bytes)
    assert torch.load(io.BytesIO(reply.content), weights_only=True).tolist() == [1.0, 2.0]


WRONG = """
    from ts.utils.util import PredictionException
    def handle(data, context):
        return None if data is None else eval(bytes(data[0]["body"]).decode())
"""


@pytest.mark.parametrize(
    ("text", "status", "message", "content"),
    [
        ("{'a': 1}", 503, "Invalid model predict output", "the handler returned a dict, not a list"),
        ("(1,)", 503, "Invalid model predict output", "the handler returned a tuple, not a list"),
        ("[1, 2]", 503, "number of batch response mismatched", "returned 2 results for 1 requests"),
        ("[object()]", 503, "Unsupported model output data type.", "a object is not JSON"),
        ("1 / 0", 503, "Prediction failed", "ZeroDivisionError: division by zero"),
        ("exec('raise MemoryError()')", 507, "Out of resources", "MemoryError"),
        ("exec('raise RuntimeError(\"CUDA is full\")')", 507, "Out of resources", "CUDA is full"),
        (
            "(_ for _ in ()).throw(PredictionException('not today', 513))",
            513,
            "not today",
            "PredictionException: not today : 513",
        ),
    ],
)
def test_what_goes_wrong_has_the_status_and_message_that_clients_know(
    bench: Bench, text: str, status: int, message: str, content: str
) -> None:
    served(bench, WRONG)
    reply = bench.ask(asking(text))
    assert (reply.code, reply.meta) == (30, {"status": status, "message": message})
    assert content in str(reply.content)


BATCH = """
    def handle(data, context):
        if data is None:
            return None
        if any(row["body"] == b"bad" for row in data):
            raise ValueError("bad")
        return [f"{len(data)}" for row in data]
"""


def test_a_batch_fails_as_a_whole_unless_the_operator_says_otherwise(bench: Bench) -> None:
    served(bench, BATCH, "batch_size_max = 4\n")
    assert [said(reply) for reply in bench.run(*[asking("good")] * 3)] == ["3", "3", "3"]
    assert [reply.code for reply in bench.run(asking("good"), asking("bad"), asking("good"))] == [30, 30, 30]


def test_a_bad_request_alone_fails_where_requests_are_retried_alone(bench: Bench) -> None:
    served(bench, BATCH, "batch_size_max = 4\n[options]\nretry_alone = true\n")
    replies = bench.run(asking("good"), asking("bad"), asking("good"))
    assert [reply.code for reply in replies] == [0, 30, 0]
    assert said(replies[2]) == "1"


def test_what_a_handler_says_of_each_reply_goes_with_it(bench: Bench) -> None:
    source = """
        def handle(data, context):
            if data is None:
                context.set_response_status(500)
                return
            context.set_response_content_type(0, "text/html")
            context.set_response_header(0, "X-Who", context.get_request_header(0, "X-Asked"))
            context.set_response_status(418, "teapot", 1)
            assert context.get_response_status(1) == (418, "teapot")
            assert context.get_request_id(1) == "second" and context.request_ids[0] == "first"
            assert context.request_processor[0].get_request_property("body") == {"content-type": "text/plain"}
            return [context.get_all_request_header(0), "b"]
    """
    served(bench, source, "batch_size_max = 2\n")
    first = asking(part("x", "text/plain"), headers={"X-Asked": "me"}, url_path="a/b", request_id="first")
    second = asking("y", request_id="second")
    one, two = bench.run(first, second)
    assert json.loads(said(one)) == {
        "X-Asked": "me",
        "url_path": "a/b",
        "body": {"content-type": "text/plain"},
    }
    without_metrics(one, two)
    assert one.meta == {
        "content_type": "text/html",
        "headers": {"content-type": "text/html", "X-Who": "me"},
    }
    assert two.meta["status"] == 418
    assert two.meta["phrase"] == "teapot"
    assert without_metrics(*bench.run(first, second)) == [
        one,
        two,
    ]  # nothing is left over from the call before


def test_packed_headers_are_the_same_to_handlers_and_no_other_requests(bench: Bench) -> None:
    source = """
        def handle(data, context):
            said = [dict(context.get_all_request_header(at)) for at in range(len(data or ()))]
            for at, headers in enumerate(said):
                context.get_all_request_header(at)["spoiled"] = "by another"
            return said
    """
    served(bench, source, BATCHED)
    as_map, as_bytes = (asking("x", headers=form) for form in ({"X-A": "b"}, packed({"X-A": "b"})))
    for batch in ([as_map, as_bytes], [as_bytes, as_bytes], [as_bytes]):
        assert [json.loads(said(reply)) for reply in bench.run(*batch)] == (
            [{"X-A": "b", "body": {"content-type": ""}}] * len(batch)
        )


def test_a_handler_may_make_a_request_processor_of_its_own(bench: Bench) -> None:
    source = """
        from ts.context import RequestProcessor
        def handle(data, context):
            made = RequestProcessor({"X-A": "b"})
            return [[made.get_request_property("X-A"), made.get_request_properties()]] * len(data or ())
    """
    served(bench, source)
    assert json.loads(said(bench.ask(asking("x")))) == ["b", {"X-A": "b"}]


def test_headers_that_are_none_fail_their_request_alone(bench: Bench) -> None:
    served(bench, "def handle(data, context): return [len(data)] * len(data) if data else []", BATCHED)
    wrong = asking("x", headers=packed({"a": "b"})[:-1])
    first, second, third = bench.run(asking("x", headers={}), wrong, asking("x", headers=packed({})))
    assert (said(first), said(third)) == ("2", "2")
    assert second.code == InvalidInput.code
    assert str(second.content).startswith("headers: not msgpack")


def test_the_context_says_what_handlers_look_for(bench: Bench) -> None:
    source = """
        def handle(data, context):
            about = dict(context.system_properties)
            about.pop("model_dir")
            model = context.manifest["model"]
            return data and [[about, context.model_name, model, context.model_yaml_config]]
    """
    served(bench, source, "batch_size_max = 8\n")
    about, name, manifest, config = json.loads(said(bench.ask(asking("x"))))
    assert about == {
        "gpu_id": None,
        "batch_size": 8,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": True,
    }
    assert (name, config) == ("m", {})
    assert manifest == {"modelName": "m", "handler": "handler.py", "modelVersion": "1.0"}


def test_a_module_without_a_class_or_with_two_fails_with_their_names(bench: Bench) -> None:
    assert "its classes: none" in failed(bench, "x = 1\n")
    method = "def initialize(self, context): pass\n    handle = initialize\n"
    assert "its classes: A, B" in failed(bench, f"class A:\n    {method}\nclass B:\n    {method}\n")


def test_a_named_function_is_the_entry(bench: Bench) -> None:
    source = "def run(data, context):\n    return data and ['ran']\n"
    ready(bench, archived(bench.store, "mine:run", {"mine.py": source}))
    assert said(bench.ask(asking("x"))) == "ran"


def test_a_handler_that_imports_what_is_not_there_fails_with_its_name(bench: Bench) -> None:
    assert "No module named 'nothing_of_this_name'" in failed(bench, "import nothing_of_this_name\n")


def test_a_default_handler_that_is_not_there_yet_is_named(bench: Bench) -> None:
    place(bench, archived(bench.store, "vllm_handler"))
    assert "handler: TorchServe's vllm_handler is not there yet" in bench.load().detail
    place(bench, archived(bench.store, "nobodys:handle", {"nobodys.py": "x = 1\n"}, name="n"), version="2")
    assert "there is no function 'handle' in nobodys" in bench.load("2").detail


def test_keys_without_a_meaning_are_said_in_one_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    yaml = (
        "batchSize: 4\nmaxBatchDelay: soon\ntorchrun: {nproc-per-node: 2}\nuseVenv: true\nhandler: {k: 1}\n"
    )
    source = "def handle(data, context):\n    return data and [context.model_yaml_config['handler']]\n"
    files = {"handler.py": source, "model-config.yaml": yaml}
    ready(bench, archived(bench.store, "handler.py", files, config_file="model-config.yaml"))
    [warning] = [r.getMessage() for r in caplog.records if "model-config.yaml" in r.getMessage()]
    assert warning == (
        "model m version 1: model-config.yaml: no meaning here: useVenv, torchrun; of a wrong type: "
        "maxBatchDelay ('soon' is not a whole number, 0 or more); model.toml says otherwise, and counts: "
        "batch_size_max 1 (the file: 4)"
    )
    assert json.loads(said(bench.ask(asking("x")))) == {"k": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a\n", "must be a mapping, not list"),
        ("a: [1\n", "is not YAML"),
        ("3\n", "must be a mapping, not int"),
    ],
)
def test_a_config_that_is_no_mapping_fails_the_load(bench: Bench, text: str, reason: str) -> None:
    files = {"handler.py": ECHO, "c.yaml": text}
    place(bench, archived(bench.store, "handler.py", files, config_file="c.yaml"))
    assert f"c.yaml {reason}" in bench.load().detail


def test_parts_that_are_sent_before_the_end_come_with_it(bench: Bench) -> None:
    source = """
        from ts.handler_utils.utils import send_intermediate_predict_response as send
        def handle(data, context):
            if data is None:
                return
            for i in range(3):
                send([f"part {i}, " for _ in data], context.request_ids, "ok", 200, context)
            return ["end" for _ in data]
    """
    served(bench, source, "batch_size_max = 2\n")
    replies = bench.run(asking("x"), asking("y"))
    assert [said(reply) for reply in replies] == ["part 0, part 1, part 2, end"] * 2
    assert replies[0].meta["headers"] == {"ts_stream_next": "true"}
    assert said(bench.ask(asking("z"))) == "part 0, part 1, part 2, end"


PIECES = """
    from ts.handler_utils.utils import send_intermediate_predict_response as send
    def handle(data, context):
        if data is None:
            return
        for i in range(2):
            context.set_response_header(0, "seen", str(i))
            send([{"part": i}, f"part {i}, "][:len(data)], context.request_ids, "ok", 200, context)
        context.set_response_status(201)
        if any(row["body"] == b"bad" for row in data):
            raise ValueError("no")
        return ["end" for _ in data]
"""


def pieces(bench: Bench) -> list[Any]:
    return [report for report in bench.reports if isinstance(report, Piece)]


def test_parts_are_sent_at_once_to_who_takes_them_with_what_was_said_by_then(bench: Bench) -> None:
    served(bench, PIECES, "batch_size_max = 2\n")
    one, other = bench.run(asking("x", stream="true"), asking("y"))
    assert said(one) == "end" and said(other) == "part 0, part 1, end"
    first, second = pieces(bench)
    assert (first.batch, first.place, json.loads(first.content)) == (7, 0, {"part": 0})
    assert first.meta == {
        "content_type": "application/json",
        "headers": {"seen": "0", "ts_stream_next": "true"},
    }
    assert second.meta["headers"]["seen"] == "1"
    assert one.meta["status"] == 201 and "status" not in second.meta
    assert bench.reports.index(second) < len(bench.reports) - 1, "the result is the last"


def test_tensors_do_not_come_in_pieces(bench: Bench) -> None:
    served(bench, PIECES.replace('row["body"] == b"bad"', "False"))
    asked = request(x=floats(1, 2))._replace(options={"stream": "true"})
    assert bench.ask(asked).code == 0
    assert pieces(bench) == []


def test_a_request_that_was_sent_a_piece_is_not_run_again_with_the_others(bench: Bench) -> None:
    served(bench, PIECES, "batch_size_max = 2\n[options]\nretry_alone = true\n")
    one, other = bench.run(asking("x", stream="true"), asking("bad"))
    assert (one.code, other.code) == (ModelError.code, ModelError.code)
    assert len(pieces(bench)) == 2
    one, other = bench.run(asking("bad", stream="true"), asking("x"))
    assert one.code == ModelError.code
    assert said(other).endswith("end"), "who had no part in it is run again"
    assert len(pieces(bench)) == 4


def test_a_piece_that_is_too_large_is_the_handlers_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "PIECE_BYTES_MAX", 10)
    served(bench, PIECES)
    reply = bench.ask(asking("x", stream="true"))
    assert reply.code == TooLarge.code and "is over the limit of 10" in str(reply.content)


def without_metrics(*replies: BatchReply) -> list[BatchReply]:
    for reply in replies:
        reply.meta.pop("metrics", None)
    return list(replies)


RECORDS = """
    from ts.metrics.dimension import Dimension
    from ts.metrics.metric_type_enum import MetricTypes
    def handle(data, context):
        metrics = context.metrics
        if data is None:
            made = metrics.add_metric_to_cache("seen", "count", ["who"], MetricTypes.COUNTER)
            return made.add_or_update(1, ["start"])
        metrics.get_metric("seen", MetricTypes.COUNTER).add_or_update(2, ["me"])
        metrics.add_counter("asked", len(data), dimensions=[Dimension("Level", "x")])
        metrics.add_time("took", 3, 0, "ms")
        metrics.add_size("size", 4, None, "GB")
        metrics.add_percent("part", 50)
        metrics.add_error("bad", "ValueError")
        return [len(data)] * len(data)
"""
ALL = ("ModelName", "m", "Level", "Model")


def test_what_a_handler_records_travels_with_a_reply_to_a_door(bench: Bench) -> None:
    served(bench, RECORDS)
    reply = bench.ask(asking("x", headers={}, request_id="r1"))
    records = unpacked(reply.meta["metrics"])
    last = records.pop()
    assert records == [
        Record("counter", "seen", "Count", 1, ("who", "start")),
        Record("counter", "seen", "Count", 2, ("who", "me")),
        Record("counter", "asked", "Count", 1, ("Level", "x", "ModelName", "m"), "r1"),
        Record("gauge", "took", "Milliseconds", 3, ALL, "r1"),
        Record("gauge", "size", "Gigabytes", 4, ALL, "r1"),
        Record("gauge", "part", "Percent", 50, ALL, "r1"),
        Record("counter", "bad", "unit", 1, ("Level", "Error")),
    ]
    assert last[:3] == ("gauge", "PredictionTime", "Milliseconds")
    assert last.value >= 0 and last[4:] == (ALL, "r1")


def test_only_one_reply_of_a_batch_carries_metrics_and_only_to_a_door(bench: Bench) -> None:
    served(bench, RECORDS, toml="batch_size_max = 4\n")
    assert "metrics" not in bench.ask(asking("x")).meta  # a direct client's
    ids = [{"headers": {}, "request_id": name} for name in "ab"]
    replies = bench.run(asking("x"), *(asking("y", **more) for more in ids))
    assert [reply.meta.get("metrics") is not None for reply in replies] == [False, True, False]
    took = [record for record in unpacked(replies[1].meta["metrics"]) if record.name == "PredictionTime"]
    assert took[-1].request.endswith(",a,b"), "all requests of the batch"
    assert len(took) == 2, "the direct client's batch is told, too"


def test_a_declared_metric_is_there_from_the_start_and_a_wrong_value_fails_no_handler(
    bench: Bench, tmp_path: Path
) -> None:
    config = tmp_path / "metrics.yaml"
    metric = "{name: mine, unit: ms, dimensions: [a, b]}"
    config.write_text(f"model_metrics:\n  gauge:\n    - {metric}\n")
    source = """
        from ts.metrics.dimension import Dimension
        from ts.metrics.metric_cache_errors import MetricsCacheKeyError
        from ts.metrics.metric_type_enum import MetricTypes
        def handle(data, context):
            if data is None:
                return
            mine = context.metrics.get_metric("mine", MetricTypes.GAUGE)
            mine.add_or_update(1, ["x", "y"])
            mine.add_or_update("much", ["x", "y"])
            mine.add_or_update(1, ["too", "many", "values"])
            context.metrics.add_counter("down", -1)
            context.metrics.add_metric("odd\\ud800", 2, "\\ud800", 0, [Dimension("d", "\\udfff")])
            try:
                context.metrics.get_metric("nobody's")
            except MetricsCacheKeyError:
                return ["fine"]
    """
    served(bench, source, toml=f'[options]\nmetrics_config = "{config}"\n')
    reply = bench.ask(asking("x", headers={}))
    assert said(reply) == "fine"
    records = unpacked(reply.meta["metrics"])
    assert [record.name for record in records] == ["mine", "odd?", "PredictionTime"]
    encode(Replies([Reply(1, *reply)]))  # it can travel
    assert records[0] == Record("gauge", "mine", "Milliseconds", 1, ("a", "x", "b", "y"))


def test_explanations_and_descriptions_are_asked_for_by_options(bench: Bench) -> None:
    source = """
        from ts.torch_handler.base_handler import BaseHandler
        class Handler(BaseHandler):
            def initialize(self, context):
                self.model = lambda data: data * 2
                self.device = "cpu"
            def get_insights(self, tensor_data, raw_data, target):
                x = tensor_data.float().requires_grad_()
                (x ** 2).sum().backward()  # as captum does
                return [[x.grad.tolist(), target]]
            def describe_handle(self):
                return {"what": "a test"}
    """
    served(bench, source)
    body = Body(
        b"", "", {"data": part("[1, 2]", "application/json"), "target": part("3", "application/json")}
    )
    assert json.loads(said(bench.ask(asking(body)))) == [2, 4]
    assert json.loads(said(bench.ask(asking(body, explain="true")))) == [[[2.0, 4.0]], 3]
    assert json.loads(said(bench.ask(asking(body, describe=True)))) == {"what": "a test"}


def test_a_description_is_asked_for_alone_and_with_nothing_else(bench: Bench) -> None:
    source = """
        def handle(data, context):
            headers = context.request_processor[0].get_request_properties() if data else {}
            return data and [[len(data), list(row), headers] for row in data]
    """
    served(bench, source, "batch_size_max = 4")
    asked = [asking("x"), asking("y"), asking("", describe="true"), asking("z")]
    answers = [json.loads(said(reply)) for reply in bench.run(*asked)]
    assert [count for count, _, _ in answers] == [2, 2, 1, 1]
    assert answers[2] == [1, [], {"describe": "True"}]
    assert "describe" not in answers[3][2]


def test_tensors_are_answered_with_tensors(bench: Bench) -> None:
    source = """
        def handle(data, context):
            return data and [{"y": row["x"].mul_(2), "n": "name"} for row in data]
    """
    served(bench, source)
    one = tensors_of(bench.ask(request(x=floats(1, 2))))
    assert one["y"].tolist() == [2, 4]
    assert one["n"].tolist() == b"name"
    two = tensors_of(bench.ask(request(rows=2, x=floats([1, 2], [3, 4]))))
    assert two["y"].tolist() == [[2, 4], [6, 8]]
    assert two["n"].tolist() == [b"name", b"name"]


def test_micro_batches_keep_the_order_of_requests(bench: Bench) -> None:
    source = """
        import torch
        from ts.torch_handler.base_handler import BaseHandler
        from ts.handler_utils.micro_batching import MicroBatching
        class Handler(BaseHandler):
            def initialize(self, context):
                self.sizes = []
                self.device = "cpu"
                self.handle = MicroBatching(self, 2, {"inference": 2})
            def inference(self, data):
                self.sizes.append(len(data))
                return data * 10
            def postprocess(self, data):
                return [[value, max(self.sizes)] for value in data.tolist()]
    """
    served(bench, source, "batch_size_max = 8\n")
    asked = [asking(part(str(i), "application/json")) for i in range(5)]
    assert [json.loads(said(reply)) for reply in bench.run(*asked)] == [[i * 10, 2] for i in range(5)]


@pytest.mark.parametrize(
    ("envelope", "body", "answer"),
    [
        ("body", "[1]", "[\n  [\n    1\n  ]\n]"),
        ("json", '{"instances": [{"b64": "aGk="}, 2]}', '{"predictions": ["b\'hi\'", "2"]}'),
        ("kserve", '{"instances": [3]}', '{\n  "predictions": [\n    "3"\n  ]\n}'),
    ],
)
def test_envelopes_shape_requests_and_replies(bench: Bench, envelope: str, body: str, answer: str) -> None:
    whole = (
        "[data]"
        if envelope == "body"
        else "[(str(bytes(x)) if isinstance(x, bytes) else str(x)) for x in data]"
    )
    source = f"def handle(data, context):\n    return data and {whole}\n"
    served(bench, source, f'[options]\nenvelope = "{envelope}"\n')
    assert said(bench.ask(asking(part(body, "application/json")))) == answer


def test_the_open_inference_protocols_envelope(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data and [row['data'] for row in data]\n"
    served(bench, source, '[options]\nenvelope = "kservev2"\n')
    body = {
        "id": "7",
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}],
    }
    reply = json.loads(said(bench.ask(asking(part(json.dumps(body), "application/json")))))
    assert reply == {
        "id": "7",
        "model_name": "m",
        "model_version": "1.0",
        "outputs": [{"name": "x", "datatype": "INT64", "data": [1, 2, 3, 4], "shape": [4]}],
    }


def _outputs(bench: Bench, *inputs: tuple[str, object]) -> object:
    inputs_ = [{"name": n, "shape": [len(d)], "datatype": "BYTES", "data": d} for n, d in inputs]  # type: ignore[arg-type]
    body = json.dumps({"inputs": inputs_})
    outputs = json.loads(said(bench.ask(asking(part(body, "application/json")))))["outputs"]
    return [(output["name"], output["datatype"], output["data"]) for output in outputs]


def test_in_that_envelope_a_handler_may_return_fewer_results_than_it_got_inputs(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data and [[row['data'] for row in data]]\n"
    served(bench, source, '[options]\nenvelope = "kservev2"\n')
    assert _outputs(bench, ("x", ["one"]), ("y", ["other"])) == [("x", "BYTES", ["one", "other"])]


def test_in_that_envelope_one_element_of_bytes_is_itself_and_several_are_a_list(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data and [type(row['data']).__name__ for row in data]\n"
    served(bench, source, '[options]\nenvelope = "kservev2"\n')
    expected = [("x", "BYTES", ["str"]), ("y", "BYTES", ["list"])]
    assert _outputs(bench, ("x", ["one"]), ("y", ["one", "two"])) == expected


def test_in_that_envelope_no_inputs_are_no_reply(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data\n"
    served(bench, source, '[options]\nenvelope = "kservev2"\n')
    reply = bench.ask(asking(part('{"inputs": []}', "application/json")))
    assert reply.meta["message"] == "number of batch response mismatched"


def test_a_type_in_capitals_is_not_looked_into(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data and [type(data[0]['body']).__name__]\n"
    served(bench, source)
    assert said(bench.ask(asking(part("[1]", "application/json")))) == "list"
    assert said(bench.ask(asking(part("[1]", "APPLICATION/JSON")))) == "bytearray"


def test_a_part_does_not_hide_the_header_of_its_name(bench: Bench) -> None:
    source = "def handle(data, context):\n    return data and [context.get_all_request_header(0)]\n"
    served(bench, source)
    form = Body(b"", "", {"explain": part("x", "text/plain"), "a": part("y", "text/plain")})
    said_ = json.loads(said(bench.ask(asking(form, headers={}, explain="false"))))
    assert said_ == {"explain": "False", "a": {"content-type": "text/plain"}}


def test_an_envelope_that_nobody_knows_fails_the_load(bench: Bench) -> None:
    detail = failed(bench, ECHO, '[options]\nenvelope = "paper"\n')
    assert "envelope: 'paper' is not one of body, json, kserve, kservev2" in detail


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("[options]\nretry = true\n", "options.retry is not known to backend 'torchserve'"),
        ('[options]\nretry_alone = "yes"\n', "options.retry_alone must be of type bool, not str"),
        ('precision = "float16"\n', "precision: float16 is not possible"),
        (
            "batch_size_max = 2\nbatch_buckets = [1, 2]\n",
            "batch_buckets: backend 'torchserve' takes requests",
        ),
    ],
)
def test_what_an_archive_cannot_have_is_refused(bench: Bench, toml: str, reason: str) -> None:
    assert reason in failed(bench, ECHO, toml)


def test_an_unload_lets_a_changed_archive_be_loaded(bench: Bench) -> None:
    served(bench, "def handle(data, context):\n    return data and ['one']\n")
    assert said(bench.ask(asking("x"))) == "one"
    bench.unload()
    (bench.store / "m" / "1" / "m.mar").unlink()
    served(bench, "def handle(data, context):\n    return data and ['two']\n")
    assert said(bench.ask(asking("x"))) == "two"


def test_folders_of_workers_that_are_gone_are_swept(bench: Bench) -> None:
    left = Path(tempfile.gettempdir()) / f"{scratch.PREFIX}left"
    (left / "files").mkdir(parents=True)
    held = scratch.Scratch()
    served(bench, ECHO)
    assert not left.exists()
    assert held.path.is_dir()
    held.close()


def test_the_weights_of_a_hostile_archive_are_not_unpickled(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    buffer = io.BytesIO()
    torch.save(_Hostile(str(marker)), buffer)
    files = {"net.py": "import torch\nclass Net(torch.nn.Module):\n    pass\n", "w.pt": buffer.getvalue()}
    made = archived(bench.store, "base_handler", files, model_file="net.py", serialized_file="w.pt")
    place(bench, made)
    assert "[options] unpickle = true" in bench.load().detail
    assert not marker.exists()


class _Hostile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_a_text_is_classified_by_the_default_handler(bench: Bench) -> None:
    net = """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bag = torch.nn.EmbeddingBag(4, 2, mode="sum")
            def forward(self, words, offsets):
                return self.bag(words, offsets)
    """
    weight = torch.tensor([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0], [0.0, 3.0]])
    files: dict[str, str | bytes] = {
        "net.py": net,
        "net.pt": saved({"bag.weight": weight}),
        "source_vocab.pt": saved({"<unk>": 0, "good": 1, "bad": 2, "not bad": 3}),
        "index_to_name.json": json.dumps({"0": "unhappy", "1": ["x", "happy"]}),
    }
    made = archived(
        bench.store,
        "text_classifier",
        files,
        model_file="net.py",
        serialized_file="net.pt",
        extra_files="source_vocab.pt,index_to_name.json",
    )
    ready(bench, made)
    first = json.loads(said(bench.ask(asking(part("It <b>was</b> GÓOD!", "text/plain")))))
    assert list(first) == ["unhappy", "happy"]
    assert first["happy"] == pytest.approx(torch.softmax(torch.tensor([0.0, 5.0]), 0)[1].item())
    negated = json.loads(said(bench.ask(asking("it isn't bad"))))
    assert negated["happy"] == pytest.approx(torch.softmax(torch.tensor([5.0, 3.0]), 0)[1].item())


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_scripted_model_runs_under_the_base_handler(bench: Bench) -> None:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Double(), torch.ones(1, 2)), buffer)
    ready(bench, archived(bench.store, "base_handler", {"d.pt": buffer.getvalue()}, serialized_file="d.pt"))
    assert json.loads(said(bench.ask(asking(part("[1, 2]", "application/json"))))) == [2, 4]
    outputs = tensors_of(bench.ask(request(data=floats(3, 4))))
    assert np.allclose(outputs["output_0"], [6, 8])


def test_a_limit_on_pixels_is_lifted_for_the_archive_alone(bench: Bench) -> None:
    image = pytest.importorskip("PIL.Image")
    source = (
        "import PIL.Image\ndef handle(data, context):\n    return data and [PIL.Image.MAX_IMAGE_PIXELS]\n"
    )
    limit = image.MAX_IMAGE_PIXELS
    served(bench, source, "[options]\nlimit_image_pixels = false\n")
    assert said(bench.ask(asking("x"))) == "null"
    assert limit == image.MAX_IMAGE_PIXELS
    served(bench, source)
    assert said(bench.ask(asking("x"))) == str(limit)


def test_inputs_that_are_declared_warm_the_handler(bench: Bench) -> None:
    source = """
        calls = []
        def handle(data, context):
            calls.append(data)
            return data and [{"y": row["x"] * 2, "calls": len(calls)} for row in data]
    """
    facts = served(bench, source, "batch_size_max = 2\n" + X)
    assert set(facts["warmup"]) == {"1", "2"}
    assert tensors_of(bench.ask(request(x=floats(1, 2))))["calls"] > 3


def test_tensors_of_different_shapes_share_a_call(bench: Bench) -> None:
    source = (
        "def handle(data, context):\n    return data and [[len(data), *row['x'].shape] for row in data]\n"
    )
    served(bench, source, "batch_size_max = 2\n")
    one, two = bench.outputs(request(x=floats(1, 2)), request(x=floats(1, 2, 3)))
    assert (one["output_0"].tolist(), two["output_0"].tolist()) == ([2, 2], [2, 3])


def test_the_default_handlers_compile_as_the_config_says(bench: Bench) -> None:
    net = """
        import torch
        class Net(torch.nn.Module):
            def forward(self, x):
                return x * (2 if torch.compiler.is_compiling() else 3)
    """
    files = {"net.py": net, "c.yaml": "pt2: {compile: {enable: true, backend: eager}}\n"}
    ready(bench, archived(bench.store, "base_handler", {**files}, model_file="net.py", config_file="c.yaml"))
    assert json.loads(said(bench.ask(asking(part("[1, 2]", "application/json"))))) == [2, 4]


def test_an_exit_in_a_handler_fails_its_request_only(bench: Bench) -> None:
    served(bench, "def handle(data, context):\n    return data and exit(3)\n")
    reply = bench.ask(asking("x"))
    assert (reply.code, reply.content) == (30, "SystemExit: 3")


def test_gradients_are_there_at_each_call_and_a_model_beside_it_runs_without(bench: Bench) -> None:
    source = """
        import torch
        def handle(data, context):
            if data is None:
                return
            seen = [torch.is_inference_mode_enabled(), torch.is_grad_enabled()]
            torch.set_grad_enabled(False)
            return [seen] * len(data)
    """
    served(bench, source)
    model = (
        "import torch\nclass Model:\n    def infer(self, x): return x * 0 + torch.is_inference_mode_enabled()"
    )
    bench.write_version("2", X, model=model)
    assert bench.load("2").state == "ready"
    for _ in range(2):
        assert [json.loads(said(bench.ask(asking("x")))) for _ in range(2)] == [[False, True]] * 2
        assert tensors_of(bench.ask(request(x=floats(0, 0)), "2"))["output_0"].tolist() == [1, 1]
