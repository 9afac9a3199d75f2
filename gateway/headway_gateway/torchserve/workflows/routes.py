"""Workflows over HTTP: `/workflows` on the management address, `/wfpredict/NAME` on that for inference.

Thin. Knows: routes, parameters. Must not know: how any of it is carried out. What is refused is written by
the app.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import falcon.asgi

from headway.torchserve.properties import Properties
from headway_gateway.inference import JSON
from headway_gateway.request import Request
from headway_gateway.torchserve.forms import body_or_parts
from headway_gateway.torchserve.heads import request_id
from headway_gateway.torchserve.operations import PAGE_MAX
from headway_gateway.torchserve.parameters import Query
from headway_gateway.torchserve.refusal import bad_request, no_method, no_resource, written
from headway_gateway.torchserve.workflows.operations import Workflows

Response = falcon.asgi.Response


class WorkflowManagement:
    """The routes for operators."""

    def __init__(self, workflows: Workflows, properties: Properties) -> None:
        self._workflows = workflows
        self._properties = properties

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/workflows", self, suffix="workflows")
        app.add_route("/workflows/{name}", self, suffix="workflow")

    async def on_get_workflows(self, req: Request, resp: Response) -> None:
        query = Query(req.query_string)
        limit, token = query.number("limit", PAGE_MAX), query.number("next_page_token", 0)
        _show(resp, await self._workflows.list_workflows(limit, token))

    async def on_post_workflows(self, req: Request, resp: Response) -> None:
        """It goes on when the client leaves: half a workflow is none."""
        done = await asyncio.shield(self._workflows.register(*await self._wish(req)))
        _show(resp, {"status": done.text})

    async def on_get_workflow(self, req: Request, resp: Response, name: str) -> None:
        _show(resp, await self._workflows.describe(name))

    async def on_delete_workflow(self, req: Request, resp: Response, name: str) -> None:
        done = await asyncio.shield(self._workflows.unregister(name))
        _show(resp, {"status": done.text})

    async def on_options_workflows(self, req: Request, resp: Response) -> None:
        raise no_method()

    async def on_options_workflow(self, req: Request, resp: Response, name: str) -> None:
        raise no_method()

    async def _wish(self, req: Request) -> tuple[str, str, bool]:
        """The URL, the name if one is wished, and `s3_sse_kms`. Raises: Refusal."""
        if (req.content_type or "").partition(";")[0].strip().lower() == JSON:
            said = _object(bytes(await req.body(self._properties.max_request_size)))
        else:
            query = Query(req.query_string)
            said = {key: query.text(key) for key in ("url", "workflow_name", "s3_sse_kms")}
        url, name = said.get("url"), said.get("workflow_name")
        if url is None:
            raise bad_request("Parameter url is required.")
        if not isinstance(url, str) or not isinstance(name, str | None):
            raise bad_request("url and workflow_name must be text")
        return url, name or "", str(said.get("s3_sse_kms")).lower() == "true"


class WorkflowPredictions:
    """The route for callers. Any method will do."""

    def __init__(self, workflows: Workflows, properties: Properties) -> None:
        self._workflows = workflows
        self._properties = properties

    def add_routes(self, app: falcon.asgi.App[Any, Any]) -> None:
        app.add_route("/wfpredict/{name}", self)
        app.add_route("/wfpredict/{name}/{rest:path}", self)

    async def on_get(self, req: Request, resp: Response, name: str, rest: str = "") -> None:
        if not name:
            raise no_resource()
        data = await req.body(self._properties.max_request_size, unpacks=False)
        body = body_or_parts(data, req.get_header("Content-Type") or "")
        answer = self._workflows.predict(name, body, req.spelled, request_id())
        resp.content_type, resp.data = JSON, await req.while_connected(answer)

    on_post = on_put = on_patch = on_delete = on_options = on_get


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise bad_request(f"the body is not an object but {type(found).__name__}")
    return found


def _show(resp: Response, document: object) -> None:
    resp.content_type, resp.data = JSON, written(document)
