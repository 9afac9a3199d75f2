"""headway_gateway.torchserve.registry: what another process changes is seen, and the broker is asked
seldom."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from headway.errors import BrokerUnreachable, InternalError
from headway.torchserve.registering import Wish
from headway.torchserve.registration import change_version, read_registration, remove_version
from headway_gateway.torchserve import registry as module
from headway_gateway.torchserve.registry import Registry
from tests.gateway.torchserve_broker import FakeBroker, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    register(yard)
    yard.broker.looks = 0
    return yard


def register(yard: Yard, version: str = "1.0") -> None:
    asyncio.run(yard.operations.register(Wish(yard.archive(version=version), initial_workers=0), True))


def test_a_version_is_found_by_its_name_and_as_the_default(yard: Yard) -> None:
    async def body() -> None:
        registry = Registry(yard.broker)
        assert registry.of("m", "1.0") is None, "it does not know yet where the store is"
        assert (await registry.find("m")) == read_registration(yard.store / "m" / "1.0")
        assert registry.of("m", "1.0") is registry.of("m")
        assert registry.of("m", "2.0") is None
        assert registry.of("m", "../1.0") is None

    asyncio.run(body())


def test_a_miss_asks_the_broker_at_once(yard: Yard) -> None:
    async def body() -> None:
        registry = Registry(yard.broker)
        await registry.look()
        assert registry.of("new") is None
        wish = Wish(yard.archive("new"), initial_workers=0)
        await yard.operations.register(wish, True)  # another process
        assert await registry.find("new")

    asyncio.run(body())


def test_what_another_process_changes_in_the_store_is_seen_at_once(yard: Yard) -> None:
    async def body() -> None:
        registry = Registry(yard.broker)
        await registry.look()
        found = registry.of("m", "1.0")
        assert found
        change_version(yard.store, replace(found, workers_min=7))
        again = registry.of("m", "1.0")
        assert again and again.workers_min == 7
        remove_version(yard.store, "m", "1.0")
        assert registry.of("m", "1.0") is None

    asyncio.run(body())


def test_another_default_is_seen_within_a_second_without_waiting_for_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(yard, "2.0")
    monkeypatch.setattr(module, "OLD_S", 0.05)

    async def body() -> None:
        registry = Registry(yard.broker)
        await registry.look()
        yard.broker.defaults["m"] = "2.0"
        await asyncio.sleep(0.06)
        async with asyncio.timeout(10):
            while (found := registry.of("m")) and found.version != "2.0":  # it asks in the background
                await asyncio.sleep(0.01)
        assert found

    asyncio.run(body())


def test_the_broker_is_asked_once_for_many_questions(yard: Yard) -> None:
    async def body() -> None:
        registry = Registry(yard.broker)
        await registry.look()
        for _ in range(1000):
            assert registry.of("m")
        await asyncio.sleep(0)
        assert yard.broker.looks == 1

    asyncio.run(body())


def test_only_what_the_broker_knows_is_listed(yard: Yard) -> None:
    register(yard, "2.0")
    del yard.broker.versions[("m", "2.0")]
    found = asyncio.run(Registry(yard.broker).models())
    assert {model: list(versions) for model, versions in found.items()} == {"m": ["1.0"]}


def test_the_default_is_what_was_ordered_even_if_it_has_no_traffic_yet(tmp_path: Path) -> None:
    class Moving(FakeBroker):
        async def state(self) -> dict[str, object]:
            state = await super().state()
            models = [
                {"name": "m", "version": "1", "default": True, "wanted_traffic": 0.0},
                {"name": "m", "version": "2", "default": False, "wanted_traffic": 1.0},
            ]
            return {**state, "models": models}

    registry = Registry(Moving(tmp_path))
    asyncio.run(registry.look())
    assert registry.default("m") == "2"


def test_a_broker_that_is_away_leaves_what_was_known(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "OLD_S", -1.0)

    async def away() -> None:
        raise BrokerUnreachable("gone")

    async def body() -> None:
        registry = Registry(yard.broker)
        await registry.look()
        monkeypatch.setattr(yard.broker, "state", away)
        assert registry.of("m")
        await asyncio.sleep(0.01)
        assert registry.of("m")
        with pytest.raises(BrokerUnreachable):
            await registry.find("m")

    with caplog.at_level(logging.WARNING):
        asyncio.run(body())
    assert "the broker does not say which models there are" in caplog.text


def test_a_store_on_another_host_is_an_error(tmp_path: Path) -> None:
    registry = Registry(FakeBroker(tmp_path / "elsewhere"))
    asyncio.run(registry.look())
    with pytest.raises(InternalError, match="not on this host"):
        _ = registry.store
