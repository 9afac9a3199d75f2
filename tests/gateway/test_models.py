"""headway_gateway.models: what the broker says of its models."""

from __future__ import annotations

import asyncio

import pytest

from headway.errors import BrokerUnreachable, UnknownModel
from headway.stub import AsyncStubClient
from headway_gateway import models


def version(name: str, number: str, ready: int = 1, wanted: int = 1, default: bool = False) -> dict:
    return {"name": name, "version": number, "ready": ready, "wanted": wanted, "default": default}


KNOWN = [version("a", "1"), version("a", "2", ready=0, default=True), version("b", "1", ready=0, wanted=0)]


def test_the_route_shows_the_brokers_list(site):
    answer = site.get("/models")
    assert answer.status_code == 200
    assert [m["name"] for m in answer.json()["models"]] == list(site.client._models)


def test_the_default_version_comes_first():
    assert [m["version"] for m in models.versions_of(KNOWN, "a")] == ["2", "1"]
    assert [m["version"] for m in models.versions_of(KNOWN, "a", "1")] == ["1"]


@pytest.mark.parametrize(("name", "number", "named"), [("c", "", "c"), ("a", "3", "3"), ("c", "1", "c")])
def test_what_the_broker_does_not_know_is_unknown(name, number, named):
    with pytest.raises(UnknownModel, match=repr(named)):
        models.versions_of(KNOWN, name, number)


def test_only_versions_that_should_be_ready_are_waited_for():
    assert models.waiting(KNOWN) == ["a/2"]


def test_a_broker_that_does_not_answer_is_503_and_no_hang(over, monkeypatch):
    monkeypatch.setattr(models, "ANSWER_S", 0.01)

    class Silent(AsyncStubClient):
        async def models(self):
            await asyncio.Event().wait()

    site = over(Silent({}))
    answer = site.get("/models")
    assert (answer.status_code, answer.json()["type"]) == (503, "ServiceUnavailableException")
    assert site.get("/v2/health/ready").status_code == 503
    assert site.get("/v2/models/a/ready").status_code == 503
    assert site.get("/ping").status_code == 500


def test_an_answer_in_time_is_the_answer():
    assert asyncio.run(models.ask_broker(asyncio.sleep(0, "here"))) == "here"


def test_a_broker_that_does_not_answer_is_unreachable(monkeypatch):
    monkeypatch.setattr(models, "ANSWER_S", 0.01)
    with pytest.raises(BrokerUnreachable, match=r"within 0\.01 s"):
        asyncio.run(models.ask_broker(asyncio.sleep(9)))
