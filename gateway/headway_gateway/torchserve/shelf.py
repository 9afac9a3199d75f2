"""Into the store and out of it: a version is registered where the store has it and the broker knows of it.

Both change under the store's lock (see `storelock`), so of several who register one version one wins, in
whichever process. What a dead process left between the two is in the store, and unknown to the broker: who
holds the lock may take it away, and does when the version is registered or unregistered again.

Knows: the store's files, the broker's orders, which texts say what is wrong. Must not know: where archives
come from, whether copies start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from headway import logs
from headway.errors import HeadwayError, InvalidInput, NotReady, SettingsError
from headway.torchserve.properties import Properties
from headway.torchserve.registration import (
    Registration,
    change_version,
    folder_of,
    read_registration,
    remove_version,
    write_version,
)
from headway.torchserve.requirements import InstallError, installed
from headway_gateway.torchserve import storelock
from headway_gateway.torchserve.orders import INTERNAL, Orders, refusal_of
from headway_gateway.torchserve.refusal import Refusal, bad_request, no_model, no_version
from headway_gateway.torchserve.registry import Registry

_log = logs.get("headway.gateway")


class StillServes(Refusal):
    """A version has the traffic that was ordered elsewhere: the new default is not ready."""


class Shelf:
    """What is registered, to be changed. All raise Refusal."""

    def __init__(self, registry: Registry, orders: Orders, properties: Properties) -> None:
        self._registry = registry
        self._orders = orders
        self._properties = properties

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[dict[str, Any]]:
        """Nobody else changes what is registered meanwhile. Gives the broker's state."""
        try:
            await self._registry.look()  # where the store is
            async with storelock.held(self._registry.store):
                yield await self._registry.look()
                await self._registry.look()  # what is asked next has changed
        except OSError as error:
            raise Refusal(500, INTERNAL, f"the model store: {error}") from None
        except HeadwayError as error:
            raise refusal_of(error) from None

    def registered(self, model: str, version: str | None) -> Registration:
        """As of the last look; `version` None: the default one."""
        which = version or self._registry.default(model)
        found = self._registry.of(model, which) if self._registry.knows(model, which) else None
        if found:
            return found
        if version and self._registry.default(model):
            raise no_version(model, version)
        raise no_model(model)

    def left(self, model: str, version: str) -> Registration | None:
        """What a dead process left in the store, unknown to the broker."""
        return None if self._registry.knows(model, version) else self._registry.of(model, version)

    def check_names(self, registration: Registration) -> None:
        """Whether Headway has such names."""
        try:
            folder_of(self._registry.store, *registration.key)
        except SettingsError as error:
            raise bad_request(str(error)) from None

    # ---- while `changing` ----

    async def enter(self, registration: Registration) -> None:
        """Register it. All of it or nothing."""
        model, version = registration.key
        if self._registry.knows(model, version):
            raise _conflict(model, version)
        is_first = not self._registry.default(model)
        await asyncio.to_thread(self._write, registration)
        try:
            await self._orders.register(model, version)
            if is_first:
                await self._orders.default(model, version)
        except BaseException as error:
            with suppress(HeadwayError):  # or the broker would not believe that its only version is gone
                await self._orders.unregister(model, version)
            await self._forget(model, version)
            if isinstance(error, NotReady):
                raise Refusal(400, "InvalidModelException", str(error)) from None
            raise

    async def leave(self, model: str, version: str) -> None:
        """Register it no longer. Raises: StillServes; Refusal."""
        if self._registry.knows(model, version):
            is_last = len(self._registry.versions(model)) == 1
            if version == self._registry.default(model) and not is_last:
                raise _default_stays(model)
            try:
                await self._orders.unregister(model, version)
            except InvalidInput:  # it still has the traffic: the new default is not ready
                stays = _default_stays(model)
                raise StillServes(stays.status, stays.type, stays.message) from None
        await self._forget(model, version)

    async def change(self, registration: Registration) -> None:
        """Say something else of it."""
        await asyncio.to_thread(change_version, self._registry.store, registration)

    # ---- inside ----

    def _write(self, registration: Registration) -> None:
        store = self._registry.store
        if folder_of(store, *registration.key).exists():
            self._clear(registration)
        if self._properties.install_py_dep_per_model and not registration.workflow:
            registration = _with_packages(registration)
        write_version(store, registration, self._properties)

    def _clear(self, registration: Registration) -> None:
        """A process died that had begun with this version."""
        store, (model, version) = self._registry.store, registration.key
        try:
            left = read_registration(folder_of(store, model, version))
        except SettingsError:
            raise _conflict(model, version) from None  # somebody else's folder
        if left.archive == registration.archive:
            change_version(store, replace(left, downloaded=False))  # it is needed
        remove_version(store, model, version)

    async def _forget(self, model: str, version: str) -> None:
        try:
            await asyncio.to_thread(remove_version, self._registry.store, model, version)
        except SettingsError as error:
            _log.warning("version is not in the store", model=model, version=version, reason=str(error))
        await self._orders.rescan()


def _with_packages(registration: Registration) -> Registration:
    try:
        return installed(registration)
    except InstallError as error:
        _log.error("requirements are not installed", model=registration.model, reason=error.said)
        raise Refusal(400, "ModelException", str(error)) from None


def _conflict(model: str, version: str) -> Refusal:
    text = f"Model version {version} is already registered for model {model}"
    return Refusal(409, "ConflictStatusException", text)


def _default_stays(model: str) -> Refusal:
    return Refusal(403, "InvalidModelVersionException", f"Cannot remove default version for model {model}")
