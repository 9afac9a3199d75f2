"""What an OpenAPI document is put together from: schemas, parameters, responses, operations.

Knows: OpenAPI 3.0.1. Must not know: which operations there are.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
JSON = "application/json"


def typed(kind: str, description: str = "", **more: Any) -> Json:
    """A schema of one type."""
    said = {"description": description} if description else {}
    return {"type": kind, **said, **more}


def text(description: str = "") -> Json:
    return typed("string", description)


def integer(description: str = "") -> Json:
    return typed("integer", description)


def record(required: str, **properties: Json) -> Json:
    """An object. `required`: names, apart by spaces."""
    return {"type": "object", "required": required.split(), "properties": properties}


def listed(items: Json, description: str) -> Json:
    return {"type": "array", "items": items, "description": description}


def parameter(where: str, name: str, schema: Json, description: str, required: bool = False) -> Json:
    found: Json = {"in": where, "name": name, "description": description, "required": required}
    return {**found, "schema": schema}


def path(name: str, description: str) -> Json:
    return parameter("path", name, text(), description, True)


def query(name: str, kind: str, description: str, default: str = "", required: bool = False) -> Json:
    schema = typed(kind, default=default) if default else typed(kind)
    return parameter("query", name, schema, description, required)


def response(description: str, schema: Json | None = None, media_type: str = JSON) -> Json:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def operation(
    id: str, description: str, parameters: list[Json], responses: dict[str, Json], body: Json | None = None
) -> Json:
    found: Json = {"description": description, "operationId": id, "parameters": parameters}
    if body:
        found["requestBody"] = body
    return {**found, "responses": responses}


def document(info: Json, paths: dict[str, Json]) -> Json:
    return {"openapi": "3.0.1", "info": info, "paths": paths}
