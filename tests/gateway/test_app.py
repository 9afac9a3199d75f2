"""headway_gateway.app: the client's life is the server's."""

from __future__ import annotations

import asyncio

from headway.stub import AsyncStubClient
from headway_gateway.app import create_app


class LivingStub(AsyncStubClient):
    def __init__(self, fails: bool = False) -> None:
        super().__init__({})
        self.life: list[str] = []
        self._fails = fails

    async def open(self):
        if self._fails:
            raise OSError("no socket")
        self.life.append("open")

    async def close(self):
        self.life.append("close")


def lifespan(client: LivingStub, settings) -> list[str]:
    """What the app answers to a server's start and end."""
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive():
        return next(events)

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    asyncio.run(create_app(client, settings)(scope, receive, send))
    return sent


def test_the_client_is_opened_at_startup_and_closed_at_shutdown(settings):
    client = LivingStub()
    assert create_app(client, settings) and client.life == []  # never before the fork
    assert lifespan(client, settings) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert client.life == ["open", "close"]


def test_a_client_that_cannot_open_keeps_the_server_from_starting(settings):
    assert lifespan(LivingStub(fails=True), settings) == ["lifespan.startup.failed"]


def test_two_apps_in_one_process_count_apart(settings, over):
    first, second = over(AsyncStubClient({})), over(AsyncStubClient({}))
    first.get("/v2")
    assert 'dialect="oip"' in first.metrics().text
    assert 'dialect="oip"' not in second.metrics().text
