"""What TorchServe's management can do, whoever asks: HTTP, gRPC and workflows.

    operations = Operations(client, registry, properties, token)
    done = await operations.scale("resnet", None, 2, None, synchronous=True)

Every method raises `Refusal` with the status, the exception's name and the text that TorchServe's clients
know.

TorchServe has no autoscaling: between `min_worker` and `max_worker` there are as many workers as there were.
So the broker is always told one number. No lock is held while copies start: that may take minutes.

Longer than 300 lines because everybody asks here for all of it.

Knows: the order of the steps, and the texts. Must not know: HTTP, gRPC, how a body is read, files.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from headway import logs
from headway.errors import DeadlineExceeded, HeadwayError, NotReady, SettingsError
from headway.torchserve import snapshots
from headway.torchserve.members import Refused
from headway.torchserve.peek import peek
from headway.torchserve.properties import Properties
from headway.torchserve.registering import RUNTIMES, Origin, Wish, registration_of
from headway.torchserve.registration import Registration
from headway_gateway.torchserve.archives import Archives, Found, Limits
from headway_gateway.torchserve.describing import described, entry_of, own_description
from headway_gateway.torchserve.orders import INTERNAL, Orders, not_started, refusal_of
from headway_gateway.torchserve.refusal import Refusal, bad_request, no_model, no_version
from headway_gateway.torchserve.registry import Registry
from headway_gateway.torchserve.shelf import Shelf, StillServes

ALL = "all"
PAGE_MAX = 100
FETCHED = Limits()
START_MARGIN_S = 30.0  # beyond a model's startup timeout: for its process to start
FEWER_S = 10.0  # how long a client waits for workers to go
POLL_S = 0.1
PROCESSING = "Processing worker updates..."
SCALING = "Workers scaling in progress..."
_log = logs.get("headway.gateway")
Json = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What an order came to: an HTTP status, and the text of `{"status": ...}`."""

    status: int
    text: str


class Operations:
    """`client` is an `AsyncClient` (or stub), `token` the broker's management token."""

    def __init__(
        self,
        client: Any,
        registry: Registry,
        properties: Properties,
        token: str,
        limits: Limits = FETCHED,
    ) -> None:
        self._client = client
        self._registry = registry
        self._properties = properties
        self._orders = Orders(client, token)
        self._shelf = Shelf(registry, self._orders, properties)
        self._archives = Archives(properties.model_store, properties.allowed_urls, limits)

    @property
    def is_model_api_on(self) -> bool:
        """Whether clients may register and unregister. (The methods do not ask: workflows may.)"""
        return self._properties.enable_model_api

    # ---- register ----

    async def register(
        self, wish: Wish, synchronous: bool, s3_sse_kms: bool = False, workflow: str = ""
    ) -> Done:
        """200, or 202 where it is not waited for. `workflow`: whose node it is."""
        if wish.runtime and wish.runtime not in RUNTIMES:
            raise bad_request(f"Invalid RuntimeType value: {wish.runtime}")
        if wish.initial_workers is None:
            wish = replace(wish, initial_workers=self._properties.default_workers_per_model)
        await self._look()  # where the store is
        found = await self._found(wish.url, s3_sse_kms)
        try:
            looked_into = await asyncio.to_thread(self._looked_into, wish, found)
            registration = replace(looked_into, workflow=workflow, id=uuid.uuid4().hex)
            async with self._shelf.changing():
                await self._shelf.enter(registration)
        except BaseException:
            found.forget()
            raise
        done = await self._started(registration, synchronous)
        await self._note()
        return done

    async def serve(self, registration: Registration) -> Done:
        """Register what needs no look into an archive, as a workflow's function, and wait until it serves."""
        self._shelf.check_names(registration)
        async with self._shelf.changing():
            await self._shelf.enter(registration)
        return await self._started(registration, synchronous=True)

    async def _found(self, url: str, s3_sse_kms: bool) -> Found:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._archives.find, url, stop, s3_sse_kms)
        finally:
            stop.set()  # the thread of a caller that left gives up, and tidies up

    def _looked_into(self, wish: Wish, found: Found) -> Registration:
        try:
            peeked = peek(found.path)
            if not wish.model_name and not peeked.manifest.is_named:
                raise SettingsError("Model name is not defined.")
            origin = Origin(str(found.path), downloaded=found.downloaded)
            registration = registration_of(peeked, wish, self._properties, origin)
        except Refused as error:
            raise Refusal(500, INTERNAL, f"Failed to save model: {error}") from None
        except SettingsError as error:
            raise Refusal(400, "InvalidModelException", str(error)) from None
        self._shelf.check_names(registration)
        return registration

    async def _started(self, registration: Registration, synchronous: bool) -> Done:
        (model, version), copies = registration.key, registration.workers_min
        who = f'Model "{model}" Version: {version} registered with {copies} initial workers'
        if not copies:
            return Done(200, f"{who}. Use scale workers API to add workers for the model.")
        if not synchronous:
            return Done(202, PROCESSING)
        try:
            await self._orders.scale(model, version, copies, registration.startup_timeout_s + START_MARGIN_S)
        except (NotReady, DeadlineExceeded) as error:
            reason = await self._reason(model, version) or str(error)
            if not await self._is_taken_back(registration, reason):
                return Done(202, PROCESSING)
            raise not_started(model, version, reason) from None
        except HeadwayError as error:
            raise refusal_of(error) from None
        return Done(200, who)

    async def _is_taken_back(self, registration: Registration, reason: str) -> bool:
        """False: somebody else has scaled it meanwhile, so it stays. Raises: Refusal if it is there no more,
        though another one may be that somebody registered in its place."""
        model, version = registration.key
        async with self._shelf.changing():
            now = self._shelf.registered(model, version)
            if now.id != registration.id:
                raise no_version(model, version)
            if now.workers_min != registration.workers_min:
                return False
            _log.error("model does not start: it goes", model=model, version=version, reason=reason)
            with suppress(Refusal):  # others have been registered meanwhile, and this is their default
                await self._shelf.leave(model, version)
        return True

    async def _reason(self, model: str, version: str) -> str:
        """Why it does not load, with the traceback where there is one."""
        state = await self._look()
        return str(entry_of(state, model, version).get("error") or "")

    # ---- scale ----

    async def scale(
        self,
        model: str,
        version: str | None,
        min_worker: int = 1,
        max_worker: int | None = None,
        synchronous: bool = False,
    ) -> Done:
        """200; 202 where it is not waited for; 206 where it was, and takes longer."""
        most = min_worker if max_worker is None else max_worker
        if most < min_worker:
            raise bad_request("max_worker cannot be less than min_worker.")
        if min_worker < 0:
            raise bad_request(f"min_worker cannot be negative: {min_worker}")
        async with self._shelf.changing() as state:
            registration = self._shelf.registered(model, version)
            now = int(entry_of(state, *registration.key).get("min", 0))
            copies = max(min_worker, min(now, most))
            registration = replace(registration, workers_min=min_worker, workers_max=most)
            wait_s = registration.startup_timeout_s + START_MARGIN_S if synchronous else 0.0
            order = asyncio.ensure_future(self._orders.scale(*registration.key, copies, wait_s))
            if not synchronous:
                await order
            await self._shelf.change(registration)
        if not synchronous:
            await self._note()
            return Done(202, PROCESSING)
        done = await self._scaled(registration, version, copies, order)
        await self._note()
        return done

    async def _scaled(
        self, registration: Registration, version: str | None, copies: int, order: asyncio.Future[None]
    ) -> Done:
        model = registration.model
        try:
            await order
        except DeadlineExceeded:
            return Done(206, SCALING)
        except NotReady as error:
            if await self._is_scaled_anew(registration):
                return Done(206, SCALING)
            _log.error("workers do not start", model=model, version=registration.version, reason=str(error))
            raise not_started(model, version, str(error)) from None
        except HeadwayError as error:
            raise refusal_of(error) from None
        if not await self._has_at_most(registration, copies):
            return Done(206, SCALING)
        named = f", version: {version}" if version is not None else ""
        return Done(200, f"Workers scaled to {registration.workers_min} for model: {model}{named}")

    async def _is_scaled_anew(self, registration: Registration) -> bool:
        """Whether somebody else has ordered another number since. Raises: Refusal if it is there no more."""
        await self._look()
        return self._shelf.registered(*registration.key).workers_min != registration.workers_min

    async def _has_at_most(self, registration: Registration, copies: int) -> bool:
        """Wait for those to go that are too many."""
        for _ in range(round(FEWER_S / POLL_S)):
            if len(entry_of(await self._look(), *registration.key).get("copies", ())) <= copies:
                return True
            await asyncio.sleep(POLL_S)
        return False

    # ---- questions ----

    async def describe(self, model: str, version: str | None = None, customized: bool = False) -> list[Json]:
        """One dict for each version, its keys in TorchServe's order. `version`: None for the default one,
        ALL for all. `customized`: with the model's own description, as `customizedMetadata`."""
        state = await self._look()
        if version == ALL:
            found = (await self._models()).get(model)
            if not found:
                raise no_model(model)
            return await described(state, list(found.values()), self._properties.initial_worker_port)
        registration = self._shelf.registered(model, version)
        said = await described(state, [registration], self._properties.initial_worker_port)
        if customized:
            said[0]["customizedMetadata"] = await own_description(self._client, state, registration)
        return said

    async def list_models(self, limit: int = PAGE_MAX, next_page_token: int = 0) -> Json:
        """`{"nextPageToken"?: str, "models": [{"modelName", "modelUrl"}]}`."""
        found = await self._models()
        named = {name: versions.get(self._registry.default(name)) for name, versions in found.items()}
        # A workflow's functions have no URL, and are not shown.
        models = [{"modelName": n, "modelUrl": r.url} for n, r in sorted(named.items()) if r and r.url]
        return page("models", models, limit, next_page_token)

    async def registered(self) -> dict[str, dict[str, Registration]]:
        """Everything, by model and version."""
        return await self._models()

    async def has_workers(self, model: str) -> bool:
        """Whether the model's default version has a copy that serves (KServe's `ready`)."""
        state = await self._look()
        return bool(entry_of(state, *self._shelf.registered(model, None).key).get("ready"))

    # ---- default, unregister ----

    async def set_default(self, model: str, version: str) -> Done:
        """Requests without a version get it from when it is ready; until then they get the one before."""
        async with self._shelf.changing():
            self._shelf.registered(model, None)
            if version not in self._registry.versions(model):
                text = f"Model version {version} does not exist for model {model}"
                raise Refusal(404, "ModelVersionNotFoundException", text)
            await self._orders.default(model, version)
        await self._note()
        return Done(200, f'Default version successfully updated for model "{model}" to "{version}"')

    async def unregister(self, model: str, version: str | None = None) -> Done:
        """`version`: None for the default one. Requests that it has are still answered. One that was the
        default waits until the new one serves."""
        try:
            await self._unregister(model, version)
        except StillServes as error:
            await self._moved(model, error)
            await self._unregister(model, version)
        await self._note()
        return Done(200, f'Model "{model}" unregistered')

    async def _unregister(self, model: str, version: str | None) -> None:
        async with self._shelf.changing():
            left = self._shelf.left(model, version) if version else None
            registration = left or self._shelf.registered(model, version)
            await self._shelf.leave(*registration.key)

    async def _moved(self, model: str, otherwise: StillServes) -> None:
        """Raises: `otherwise` where the new default does not get ready."""
        new = self._shelf.registered(model, None)
        try:
            await self._orders.default(*new.key, new.startup_timeout_s + START_MARGIN_S)
        except HeadwayError:
            raise otherwise from None

    # ---- inside ----

    async def _look(self) -> Json:
        try:
            return await self._registry.look()
        except HeadwayError as error:
            raise refusal_of(error) from None

    async def _models(self) -> dict[str, dict[str, Registration]]:
        try:
            return await self._registry.models()
        except HeadwayError as error:
            raise refusal_of(error) from None

    async def _note(self) -> None:
        """A snapshot of what is registered now. What was ordered is done even if it cannot be written."""
        if not self._properties.config_snapshots:
            return
        try:
            await self._snapshot()
        except (OSError, Refusal) as error:
            _log.error("snapshot is not written", reason=str(error))

    async def _snapshot(self) -> None:
        found = await self._models()
        every = [r for versions in found.values() for r in versions.values() if not r.workflow]
        defaults = {model: self._registry.default(model) for model in found}
        folder = snapshots.folder_of(self._properties)
        await asyncio.to_thread(
            snapshots.write, snapshots.SNAPSHOT, self._properties, every, folder, defaults
        )


def page(name: str, rows: list[dict[str, str]], limit: int, next_page_token: int) -> Json:
    """A page of a list. The last one names another, which is empty, when it ends just with the list."""
    start = max(0, next_page_token)
    end = start + (limit if 0 <= limit <= PAGE_MAX else PAGE_MAX)
    more = {"nextPageToken": str(end)} if end <= len(rows) else {}
    return {**more, name: rows[start:end]}
