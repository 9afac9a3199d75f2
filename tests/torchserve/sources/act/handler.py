"""Does what the request's body, a JSON object, tells it to do: one archive for every rule of the contract."""

import json
import os
import sys

import torch
from ts.utils.util import PredictionException


OUTPUTS = {
    "str": "plain ütf",
    "empty": "",
    "bytes": b"\x00\x01raw",
    "bytearray": bytearray(b"array"),
    "none": None,
    "int": 7,
    "float": 0.25,
    "true": True,
    "list": [1, "two", None],
    "dict": {"b": 1, "a": [1.5, {"c": "ü"}]},
    "nan": float("nan"),
    "object": object(),
    "set": {1},
    "tensor_item": [torch.ones(1)],
    "tuple": (1, 2),
}


def say(name):
    return lambda context: [OUTPUTS[name]]


def teapot(context):
    context.set_response_status(code=418, phrase="short and stout")
    context.set_response_content_type(0, "text/x-tea")
    context.set_response_header(0, "X-Leaves", "green")
    context.set_response_header(0, "x-water", "hot")
    return ["tea"]


def status(code, phrase=""):
    def act(context):
        context.set_response_status(code=code, phrase=phrase)
        return [f"status {code}"]

    return act


def all_status(context):
    context.set_all_response_status(202, "later")
    return ["accepted"]


def fail(error):
    def act(context):
        raise error

    return act


def processor(context):
    old = context.request_processor[0]
    old.report_status(203, "from elsewhere")
    old.add_response_property("x-old", "yes")
    return [str(old.get_request_property("x-asked"))]


def headers(context):
    context.set_response_header(0, "x-first", "1")
    return [json.dumps(context.get_response_headers(0))]


def leave(context):
    os._exit(3)


def tensor(context):
    context.set_response_content_type(0, "application/x-tensor")
    return [torch.arange(6, dtype=torch.float32).reshape(2, 3)]


def printing(context):
    print("said on standard output")
    print("said on standard error", file=sys.stderr)
    return ["printed"]


ACTS = {
    **{f"return {name}": say(name) for name in OUTPUTS},
    "tensor": tensor,
    "teapot": teapot,
    "all status": all_status,
    "processor": processor,
    "headers": headers,
    "print": printing,
    "exit": leave,
    "raise": fail(ValueError("no such thing")),
    "raise prediction": fail(PredictionException("the text is too long", 422)),
    "raise prediction default": fail(PredictionException("just so")),
    "raise memory": fail(MemoryError("no more")),
    "raise cuda": fail(RuntimeError("CUDA error: something")),
    "raise system exit": fail(SystemExit(4)),
    "raise keyboard": fail(KeyboardInterrupt()),
    "not a list": lambda context: {"a": 1},
    "a string": lambda context: "abc",
    "nothing": lambda context: None,
    "two": lambda context: [1, 2],
    "no rows": lambda context: [],
    "a tuple of one": lambda context: (1,),
    "413": status(413),
    "status 201": status(201, "made"),
    "status 204": status(204),
    "status 302": status(302, "there"),
    "status 404": status(404),
    "status 500": status(500, "handler says so"),
    "status 503": status(503),
    "status 599": status(599),
    "status 513": status(513),
    "folder": lambda context: [sorted(n for n in os.listdir(".") if n != "__pycache__")],
    "path": lambda context: [os.path.realpath(sys.path[0]) == os.path.realpath(os.getcwd())],
}


class Act:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ACTS[self.deed(data[0])](context)

    def deed(self, row):
        """By HTTP the body's `do`; by gRPC, which has no types, an input called so."""
        return row["body"]["do"] if "body" in row else bytes(row["do"]).decode()
