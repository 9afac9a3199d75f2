"""The descriptions of the interface that TorchServe gives of itself: for each address, and for a model.

Knows: the operations, in TorchServe's words, which clients read. Must not know: what they do.

They are TorchServe's in everything, its slips included: a model's own description says `/prediction`, and
defaults that are others in truth.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import falcon.asgi

from headway_gateway.doors import INFERENCE, MANAGEMENT, METRICS
from headway_gateway.request import Request
from headway_gateway.torchserve import openapi_tables as tables
from headway_gateway.torchserve.openapi_parts import JSON, Json, document, operation, path, query, response
from headway_gateway.torchserve.refusal import no_method, written

VERSION = "0.12.0"  # of TorchServe: the one whose interface this is
_ABOUT = {
    "title": "TorchServe APIs",
    "description": "TorchServe is a flexible and easy to use tool for serving deep learning models",
    "version": VERSION,
}


def of_doors(doors: Collection[str]) -> Json:
    """What the addresses of these doors answer, as one document."""
    describes = {"get": {**_description("api-description"), "deprecated": True}}
    paths: dict[str, Json] = {} if METRICS in doors else {"/": {"options": _description("apiDescription")}}
    if INFERENCE in doors:
        paths |= _inference() | {"/api-description": describes}
    if MANAGEMENT in doors:
        paths |= _management()
        paths.setdefault("/api-description", describes)
    return document(_ABOUT, paths | {"/metrics": {"get": _metrics()}})


def of_model(model: str) -> Json:
    """How to ask one model."""
    ask = operation(model, f"A predict entry point for model: {model}.", [], _responses(response("OK"), 500))
    paths = (f"/prediction/{model}", "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer")
    about = {"title": f"RESTful API for: {model}", "version": "1.0.0"}
    return document(about, {at: {"post": ask} for at in paths})


async def management_of_model(model: str) -> bytes:
    """How to manage one model, as it is sent."""
    paths = {at: said for at, said in _management().items() if at != "/models"}
    about = {"title": f"RESTful Management API for: {model}", "version": VERSION}
    return written(document(about, paths))


class ApiRoutes:
    """`/` and `/api-description`; nobody is asked for a key."""

    def __init__(self, *doors: str) -> None:
        self._document = written(of_doors(doors))

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/", self, suffix="root")
        app.add_route("/api-description", self)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        resp.content_type, resp.data = JSON, self._document

    on_post = on_put = on_delete = on_patch = on_options = on_get

    async def on_options_root(self, req: Request, resp: falcon.asgi.Response) -> None:
        await self.on_get(req, resp)

    async def on_get_root(self, req: Request, resp: falcon.asgi.Response) -> None:
        raise no_method()

    on_post_root = on_put_root = on_delete_root = on_patch_root = on_get_root


# ---- operations ----


def _inference() -> dict[str, Json]:
    model, version = path("model_name", "Name of model."), path("model_version", "Name of model version.")
    default = _prediction("predictions", "default model version", [model])
    named = _prediction("version_predictions", "specific model version", [model, version])
    return {
        "/ping": {"get": _ping()},
        "/v1/models/{model_name}:predict": {"post": default},
        "/v2/models/{model_name}/infer": {"post": default},
        "/predictions/{model_name}": {"post": default},
        "/predictions/{model_name}/{model_version}": {"post": named},
    }


def _management() -> dict[str, Json]:
    return {
        "/models": {"get": _list(), "post": _register()},
        "/models/{model_name}": {"get": _describe(), "put": _scale(), "delete": _unregister()},
        "/models/{model_name}/{model_version}": {
            "get": _describe(versioned=True),
            "put": _scale(versioned=True),
            "delete": _unregister(versioned=True),
        },
        "/models/{model_name}/{model_version}/set-default": {"put": _set_default()},
    }


def _description(id: str) -> Json:
    answer = response("A openapi 3.0.1 descriptor", tables.DESCRIPTOR)
    return operation(id, "Get openapi description.", [], _responses(answer, 500))


def _ping() -> Json:
    status = tables.PING_STATUS
    return operation(
        "ping", "Get TorchServe status.", [], _responses(response("TorchServe status", status), 500)
    )


def _metrics() -> Json:
    about = "Get TorchServe application metrics in prometheus format."
    names = query("name[]", "string", "Names of metrics to filter")
    kind = "text/plain; version=0.0.4; charset=utf-8"
    answer = response("TorchServe application metrics", tables.METRICS_SCHEMA, kind)
    return operation("metrics", about, [names], _responses(answer, 500))


def _prediction(id: str, which: str, names: list[Json]) -> Json:
    body = response("Input data format is defined by each model.", tables.BYTES, "*/*") | {"required": True}
    answer = response("Output data format is defined by each model.", tables.BYTES, "*/*")
    responses = _responses(answer, 404, 500, 503)
    responses["404"] = _failure("Model not found or Model Version not found")
    return operation(id, f"Predictions entry point to get inference using {which}.", names, responses, body)


def _list() -> Json:
    about = "List registered models in TorchServe."
    answers = _responses(response("OK", tables.MODELS), 500)
    return operation("listModels", about, tables.LISTING, answers)


def _register() -> Json:
    answers = _told("Model registered", 202, 210) | _failures(400, 404, 409, 500)
    answers["404"] = _failure("Model not found")
    return operation("registerModel", "Register a new model in TorchServe.", tables.REGISTERING, answers)


def _describe(versioned: bool = False) -> Json:
    about = "Provides detailed information about the default version of a model."
    if versioned:
        about = (
            "Provides detailed information about the specified version of a model."
            'If "all" is specified as version, returns the details about all the versions of the model.'
        )
    answers = _responses(response("OK", tables.DESCRIBED), 404, 500)
    return operation(_id("describeModel", versioned), about, _names("to describe", versioned), answers)


def _scale(versioned: bool = False) -> Json:
    about = (
        f"Configure number of workers for a {'specified' if versioned else 'default'} version of a model."
        " This is an asynchronous call by default. Caller need to call describeModel to check if the model"
        " workers has been changed."
    )
    names = _names("to scale workers", versioned)
    answers = _told("Model workers updated", 202, 210) | _failures(400, 404, 500)
    return operation(_id("setAutoScale", versioned), about, [*names, *tables.SCALING], answers)


def _unregister(versioned: bool = False) -> Json:
    about = (
        "Unregister the default version of a model from TorchServe if it is the only version available."
        " This is an asynchronous call by default. Caller can call listModels to confirm model is"
        " unregistered."
    )
    if versioned:
        about = (
            "Unregister the specified version of a model from TorchServe. This is an asynchronous call by"
            " default. Caller can call listModels to confirm model is unregistered"
        )
    asked = [*_names("to unregister", versioned), tables.SYNCHRONOUS, tables.TIMEOUT]
    answers = _told("Model unregistered", 202) | _failures(404, 408, 500)
    return operation(_id("unregisterModel", versioned), about, asked, answers)


def _set_default() -> Json:
    names = [
        path("model_name", "Name of model whose default version needs to be updated."),
        path("model_version", "Version of model to be set as default version for the model"),
    ]
    answers = _told("Default version successfully updated for model") | _failures(404, 500)
    return operation("setDefault", "Set default version of a model", names, answers)


def _id(id: str, versioned: bool) -> str:
    return f"version_{id}" if versioned else id


def _names(what_for: str, versioned: bool) -> list[Json]:
    model = path("model_name", f"Name of model {what_for}.")
    return [model, path("model_version", f"Version of model {what_for}.")] if versioned else [model]


# ---- responses ----


def _responses(answer: Json, *failures: int) -> dict[str, Json]:
    return {"200": answer} | _failures(*failures)


def _told(description: str, *further: int) -> dict[str, Json]:
    """Those with a status in words."""
    named = {"200": description} | {str(code): tables.NAMES[code] for code in further}
    return {code: response(name, tables.STATUS) for code, name in named.items()}


def _failures(*codes: int) -> dict[str, Json]:
    return {str(code): _failure(tables.NAMES[code]) for code in codes}


def _failure(description: str) -> Json:
    return response(description, tables.FAILURE)
