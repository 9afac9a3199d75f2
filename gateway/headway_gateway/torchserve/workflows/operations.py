"""What can be done with workflows: register, list, describe, unregister, ask.

    done = await workflows.register("pets.war", "")
    data = await workflows.predict("pets", Body(image, "image/jpeg"), headers, request_id)

A node is a model like any other, called WORKFLOW__NODE: an archive's is registered as every archive is, a
function's as the unpacked workflow with that function for its handler.

Knows: the order of the steps, and the texts that TorchServe's clients know. Must not know: HTTP. All raise
Refusal.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from headway import logs
from headway.body import Body
from headway.errors import HeadwayError, SettingsError
from headway.torchserve.properties import Properties
from headway.torchserve.registering import Wish
from headway.torchserve.registration import Registration
from headway_gateway.inference import Target
from headway_gateway.torchserve.archives import WORKFLOWS, Archives
from headway_gateway.torchserve.asking import answer_of, ask
from headway_gateway.torchserve.operations import Done, Operations, page
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.registry import Registry
from headway_gateway.torchserve.workflows import archive, engine
from headway_gateway.torchserve.workflows.archive import Workflow
from headway_gateway.torchserve.workflows.dag import InvalidDag
from headway_gateway.torchserve.workflows.spec import Node

VERSION = "1.0"  # of a function
_log = logs.get("headway.gateway")


class Workflows:
    """`client` is an `AsyncClient` or stub."""

    def __init__(
        self, client: Any, operations: Operations, registry: Registry, properties: Properties
    ) -> None:
        self._client = client
        self._operations = operations
        self._registry = registry
        self._properties = properties
        self._archives = Archives(properties.workflow_store, properties.allowed_urls, texts=WORKFLOWS)
        self._read: dict[str, tuple[int, Workflow]] = {}  # by name, with when its folder was made

    # ---- register, unregister ----

    async def register(self, url: str, name: str = "", s3_sse_kms: bool = False) -> Done:
        """All nodes are registered and serve, or nothing is. `s3_sse_kms`: for its archive and its nodes'."""
        workflow = await self._placed(url, name, s3_sse_kms)
        await self._clear(workflow)
        nodes = workflow.spec.nodes.values()
        failures = await _failures(self._begin(workflow, node, s3_sse_kms) for node in nodes)
        if failures:
            await self._clear(workflow)
            await self._removed(workflow.name)
            said = ", ".join(failures)
            text = f"Workflow {workflow.name} has failed to register. Failures: [{said}]"
            raise Refusal(500, "WorkflowException", text)
        return Done(200, f"Workflow {workflow.name} has been registered and scaled successfully.")

    async def unregister(self, name: str) -> Done:
        """Nodes that somebody unregistered already do not matter."""
        workflow = await self._find(name)
        await self._removed(name)
        failures = await self._clear(workflow)
        if failures:
            text = f"Error while unregistering the workflow {name}. Details: {', '.join(failures)}"
            raise Refusal(500, "InternalServerException", text)
        return Done(200, f'Workflow "{name}" unregistered')

    # ---- questions ----

    async def describe(self, name: str) -> list[dict[str, Any]]:
        workflow = await self._find(name)
        limits = workflow.spec.limits
        return [
            {
                "workflowName": workflow.name,
                "workflowUrl": workflow.url,
                "minWorkers": limits.workers_min,
                "maxWorkers": limits.workers_max,
                "batchSize": limits.batch_size,
                "maxBatchDelay": limits.batch_delay_ms,
                "workflowDag": workflow.spec.dag_text,
            }
        ]

    async def list_workflows(self, limit: int, next_page_token: int) -> dict[str, Any]:
        """`{"nextPageToken"?: str, "workflows": [{"workflowName", "workflowUrl"}]}`."""
        store = await self._store()
        found = [await self._find(name) for name in archive.names(store)]
        rows = [{"workflowName": workflow.name, "workflowUrl": workflow.url} for workflow in found]
        return page("workflows", rows, limit, next_page_token)

    async def predict(self, name: str, body: Body, headers: Mapping[str, str], request_id: str) -> bytes:
        """What the last node answers, or JSON with what each of several last ones does."""
        workflow = await self._find(name)

        async def ask_node(node: Node, body: Body) -> bytes:
            target = Target(workflow.model(node.name), "")
            asked = ask(target, body, headers, request_id=request_id, lender=self._client.lender)
            return answer_of(await self._client.reply(asked, node.limits.timeout_ms / 1000)).data

        try:
            return engine.answer(await engine.run(workflow.spec, body, ask_node))
        except engine.NodeFailed as failed:
            _log.warning("workflow failed", workflow=name, node=failed.node, reason=failed.reason)
            raise Refusal(500, "InternalServerException", str(failed)) from None

    # ---- inside ----

    async def _store(self) -> Any:
        try:
            await self._registry.find("")  # learn where the store is
            return self._registry.store
        except HeadwayError as error:
            raise Refusal(503, "ServiceUnavailableException", str(error)) from None

    async def _find(self, name: str) -> Workflow:
        """As it is in the store. It never changes there, so it is read once."""
        folder = await self._store() / archive.FOLDER / name
        kept = self._read.get(name)
        try:
            made = folder.stat().st_ino
            if kept is None or kept[0] != made:
                found = await asyncio.to_thread(archive.find, folder.parents[1], name)
                if found is None:
                    raise FileNotFoundError
                kept = self._read[name] = (made, found)
        except (OSError, ValueError):
            self._read.pop(name, None)
            raise _unknown(name) from None
        return kept[1]

    async def _placed(self, url: str, name: str, s3_sse_kms: bool) -> Workflow:
        """Its archive, in the store."""
        store, stop = await self._store(), threading.Event()
        try:
            found = await asyncio.to_thread(self._archives.find, url, stop, s3_sse_kms)
            try:
                return await asyncio.to_thread(archive.put, found.path, store, url, name)
            finally:
                found.forget()  # all of it is unpacked
        except FileExistsError as taken:
            text = f"Workflow {taken} is already registered."
            raise Refusal(409, "ConflictStatusException", text) from None
        except InvalidDag as error:
            raise Refusal(400, "InvalidDAGException", str(error)) from None
        except (SettingsError, HeadwayError) as error:
            raise Refusal(400, "InvalidWorkflowException", str(error)) from None
        finally:
            stop.set()

    async def _begin(self, workflow: Workflow, node: Node, s3_sse_kms: bool) -> None:
        name, limits = workflow.model(node.name), node.limits
        if not node.url:
            await self._operations.serve(_function(workflow, node, self._properties))
            return
        wish = Wish(
            node.url,
            model_name=name,
            batch_size=limits.batch_size,
            max_batch_delay=limits.batch_delay_ms,
            initial_workers=limits.workers_min,
            workers_max=limits.workers_max,
        )
        try:
            await self._operations.register(wish, True, s3_sse_kms, workflow.name)
        except Refusal as refusal:
            if refusal.message.startswith("Failed to start workers"):
                raise
            text = f"Workflow Node {name} failed to register. Details: {refusal.message}"
            raise Refusal(refusal.status, refusal.type, text) from None

    async def _clear(self, workflow: Workflow) -> list[str]:
        """Unregister those of its nodes that are registered; what did not work."""
        models = await self._operations.registered()
        mine = [name for name, versions in models.items() if _is_node(workflow.name, versions)]
        return await _failures(self._operations.unregister(name) for name in mine)

    async def _removed(self, name: str) -> None:
        try:
            await asyncio.to_thread(archive.remove, await self._store(), name)
        except FileNotFoundError:  # another gateway process was first
            raise _unknown(name) from None


def _function(workflow: Workflow, node: Node, properties: Properties) -> Registration:
    limits = node.limits
    return Registration(
        model=workflow.model(node.name),
        version=VERSION,
        url="",
        archive=str(workflow.files),
        handler=f"{workflow.handler}:{node.name}",
        batch_size=limits.batch_size,
        batch_delay_ms=limits.batch_delay_ms,
        workers_min=limits.workers_min,
        workers_max=limits.workers_max,
        response_timeout_s=properties.default_response_timeout,
        startup_timeout_s=properties.default_startup_timeout,
        queue_size=properties.job_queue_size,
        workflow=workflow.name,
    )


def _is_node(workflow: str, versions: Mapping[str, Registration]) -> bool:
    return any(registration.workflow == workflow for registration in versions.values())


async def _failures(steps: Iterable[Awaitable[object]]) -> list[str]:
    """All of them at once; what is said of each that failed. Raises: what is no Refusal."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Refusal):
            raise outcome
    return [outcome.message for outcome in outcomes if isinstance(outcome, Refusal)]


def _unknown(name: str) -> Refusal:
    return Refusal(404, "WorkflowNotFoundException", f"Workflow not found: {name}")
