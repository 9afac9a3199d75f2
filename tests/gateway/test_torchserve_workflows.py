"""Workflows: registered whole or not at all, one name once, asked node by node."""

import asyncio
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headway.body import Body
from headway.errors import ModelError
from headway.messages import Reply
from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration
from headway_gateway.torchserve.operations import Done
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.workflows.archive import FOLDER
from headway_gateway.torchserve.workflows.operations import Workflows

SPEC = """
models:
  max-workers: 2
  cat: {url: cat.mar, batch-size: 4}
dag:
  before: [cat]
  cat: []
"""


class FakeOperations:
    """What was ordered; `broken` nodes cannot be registered."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Registration]] = {}
        self.broken: dict[str, str] = {}
        self.signed: dict[str, bool] = {}

    async def register(self, wish: Any, synchronous: bool, s3_sse_kms: bool, workflow: str) -> Done:
        await asyncio.sleep(0)
        self.signed[wish.url] = s3_sse_kms
        if text := self.broken.get(wish.url):
            raise Refusal(404, "ModelNotFoundException", text)
        made = Registration(wish.model_name, "1.0", wish.url, "", workflow=workflow)
        self.models[wish.model_name] = {"1.0": made}
        return Done(200, "")

    async def serve(self, registration: Registration) -> Done:
        self.models[registration.model] = {registration.version: registration}
        return Done(200, "")

    async def registered(self) -> dict[str, dict[str, Registration]]:
        return dict(self.models)

    async def unregister(self, model: str) -> Done:
        del self.models[model]
        return Done(200, "")


class FakeClient:
    """Answers with the model's name; `fails` names one that does not."""

    lender = None
    fails = ""

    async def reply(self, asked: Any, timeout_s: float) -> Reply:
        if asked.model == self.fails:
            raise ModelError("broken")
        return Reply(1, 0, asked.model.encode(), {})


class Site:
    def __init__(self, folder: Path) -> None:
        self.store, self.wars = folder / "store", folder / "wars"
        self.store.mkdir()
        self.wars.mkdir()
        self.operations, self.client = FakeOperations(), FakeClient()
        registry: Any = SimpleNamespace(find=self._find, store=self.store)
        properties = Properties(workflow_store=str(self.wars))
        operations: Any = self.operations
        self.workflows = Workflows(self.client, operations, registry, properties)

    async def _find(self, model: str) -> None:
        return None

    def war(self, name: str = "wf", spec: str = SPEC) -> None:
        manifest = {"workflow": {"workflowName": name, "specFile": "spec.yaml", "handler": "functions.py"}}
        with zipfile.ZipFile(self.wars / f"{name}.war", "w") as packed:
            packed.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
            packed.writestr("spec.yaml", spec)
            packed.writestr("functions.py", "")

    def left(self) -> list[str]:
        return [path.name for path in (self.store / FOLDER).glob("*")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.war()
    return made


def refusal(step: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        asyncio.run(step)
    return refused.value


def test_nodes_are_models_that_know_their_workflow(site: Site) -> None:
    done = asyncio.run(site.workflows.register("wf.war"))
    assert done.text == "Workflow wf has been registered and scaled successfully."
    cat, before = (site.operations.models[f"wf__{node}"]["1.0"] for node in ("cat", "before"))
    assert (cat.url, cat.workflow) == ("cat.mar", "wf")
    assert (before.url, before.handler, before.workflow, before.workers_max) == (
        "",
        "functions.py:before",
        "wf",
        2,
    )
    assert Path(before.archive, "functions.py").is_file()


@pytest.mark.parametrize("signs", [False, True])
def test_archives_of_nodes_are_asked_for_as_the_workflows_own(site: Site, signs: bool) -> None:
    asyncio.run(site.workflows.register("wf.war", s3_sse_kms=signs))
    assert set(site.operations.signed.values()) == {signs}


def test_of_eight_who_register_one_workflow_one_does(site: Site) -> None:
    async def all_at_once() -> list[Any]:
        steps = (site.workflows.register("wf.war") for _ in range(8))
        return await asyncio.gather(*steps, return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    statuses = sorted(outcome.status for outcome in outcomes)
    assert statuses == [200] + [409] * 7
    assert sorted(site.operations.models) == ["wf__before", "wf__cat"]


def test_a_node_that_cannot_be_registered_takes_all_with_it(site: Site) -> None:
    site.operations.broken["cat.mar"] = "Model not found at: cat.mar"
    said = refusal(site.workflows.register("wf.war"))
    assert (said.status, said.type) == (500, "WorkflowException")
    assert "Workflow Node wf__cat failed to register. Details: Model not found at: cat.mar" in said.message
    assert site.operations.models == {} and site.left() == []


def test_nodes_that_a_dead_process_left_are_replaced(site: Site) -> None:
    left = Registration("wf__old", "1.0", "old.mar", "", workflow="wf")
    other = Registration("other", "1.0", "other.mar", "")
    site.operations.models = {"wf__old": {"1.0": left}, "other": {"1.0": other}}
    asyncio.run(site.workflows.register("wf.war"))
    assert sorted(site.operations.models) == ["other", "wf__before", "wf__cat"]


def test_unregistering_takes_the_nodes_and_bears_that_one_is_gone(site: Site) -> None:
    asyncio.run(site.workflows.register("wf.war"))
    del site.operations.models["wf__cat"]
    assert asyncio.run(site.workflows.unregister("wf")).text == 'Workflow "wf" unregistered'
    assert site.operations.models == {} and site.left() == []
    assert refusal(site.workflows.describe("wf")).status == 404


def test_a_failing_node_is_named_to_the_client(site: Site) -> None:
    asyncio.run(site.workflows.register("wf.war"))
    body = Body(b"x", "")
    assert asyncio.run(site.workflows.predict("wf", body, {}, "id")) == b"wf__cat"
    site.client.fails = "wf__cat"
    said = refusal(site.workflows.predict("wf", body, {}, "id"))
    assert (said.status, said.message) == (500, "Error executing cat")


@pytest.mark.parametrize(
    ("spec", "type"),
    [
        ("models: {}\ndag: {a: [b], b: [a]}", "InvalidDAGException"),
        ("models: []\ndag: {}", "InvalidWorkflowException"),
        ("models: {}\ndag: {../a: []}", "InvalidWorkflowException"),
    ],
)
def test_what_is_no_workflow_is_refused_and_leaves_nothing(site: Site, spec: str, type: str) -> None:
    site.war("bad", spec)
    said = refusal(site.workflows.register("bad.war"))
    assert (said.status, said.type) == (400, type)
    assert site.left() == [] and site.operations.models == {}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "Workflow not found at: "),
        ("no.war", "Workflow not found in workflow store: no.war"),
        ("../x.war", "Relative path is not allowed in url: ../x.war"),
        ("http://host/x.war", "does not match any allowed URL"),
    ],
)
def test_an_archive_that_cannot_be_had_is_404(site: Site, url: str, text: str) -> None:
    said = refusal(site.workflows.register(url))
    assert (said.status, said.type) == (404, "WorkflowNotFoundException") and text in said.message
