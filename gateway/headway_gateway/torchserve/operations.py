"""What TorchServe's management can do, whoever asks: HTTP, gRPC and workflows.

    operations = Operations(client, registry, properties, token)
    done = await operations.scale("resnet", None, 2, None, synchronous=True)

Every method raises `Refusal` with the status, the exception's name and the text that TorchServe's clients know.

Knows: the order of the steps, and the texts. Must not know: HTTP, gRPC, how a body is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.torchserve.properties import Properties
from headway_gateway.torchserve.registry import Registry

if TYPE_CHECKING:
    from headway.torchserve.registering import Wish

ALL = "all"


@dataclass(frozen=True)
class Done:
    """What an order came to: an HTTP status, and the text of `{"status": ...}`."""

    status: int
    text: str


class Operations:
    """`client` is an `AsyncClient` (or stub), `token` the broker's management token."""

    def __init__(self, client: Any, registry: Registry, properties: Properties, token: str) -> None:
        self._client = client
        self._registry = registry
        self._properties = properties
        self._token = token

    @property
    def is_model_api_on(self) -> bool:
        """Whether models may be registered and unregistered."""
        return self._properties.enable_model_api

    def require_model_api(self) -> None:
        """Raises: Refusal (405) where models may not be registered or unregistered. `register` and
        `unregister` do not ask: a start and workflows may."""
        raise NotImplementedError

    async def register(self, wish: Wish, synchronous: bool, s3_sse_kms: bool = False) -> Done:
        """200, or 202 where it is not waited for."""
        raise NotImplementedError

    async def scale(
        self,
        model: str,
        version: str | None,
        min_worker: int = 1,
        max_worker: int | None = None,
        synchronous: bool = False,
    ) -> Done:
        """200; 202 where it is not waited for; 206 where it was, and takes longer."""
        raise NotImplementedError

    async def describe(
        self, model: str, version: str | None = None, customized: bool = False
    ) -> list[dict[str, Any]]:
        """One dict for each version, its keys in TorchServe's order. `version`: None for the default one,
        ALL for all. `customized`: with the model's own description, as `customizedMetadata`."""
        raise NotImplementedError

    async def list_models(self, limit: int = 100, next_page_token: int = 0) -> dict[str, Any]:
        """`{"nextPageToken"?: str, "models": [{"modelName", "modelUrl"}]}`."""
        raise NotImplementedError

    async def set_default(self, model: str, version: str) -> Done:
        raise NotImplementedError

    async def unregister(self, model: str, version: str | None = None) -> Done:
        """`version`: None for the default one."""
        raise NotImplementedError

    async def has_workers(self, model: str) -> bool:
        """Whether a copy of the model's default version can serve (KServe's `ready`)."""
        raise NotImplementedError
