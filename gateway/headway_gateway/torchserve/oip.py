"""The Open Inference Protocol as far as TorchServe speaks it, where it is enabled: what is said of the
server.

Knows: its routes and texts, `extenstion` among them (clients know it so). Must not know: models.
"""

from __future__ import annotations

from typing import Any

from headway_gateway.torchserve.openapi import VERSION

_SERVER = {"name": "Torchserve", "version": VERSION, "extenstion": ["kserve", "kubeflow"]}
_VERSIONS = "/versions"  # anywhere in a path under /v2
_DOCUMENTS: dict[str, dict[str, Any]] = {
    "/v2": _SERVER,
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
}


def answer_to_path(path: str) -> tuple[int, dict[str, Any]] | None:
    """A status and a document; None: it is no path of this protocol."""
    path = path.rstrip("/")
    if path in _DOCUMENTS:
        return 200, _DOCUMENTS[path]
    if path.startswith("/v2/") and _VERSIONS in path:
        return 501, {"error": "Model versioning is not yet supported."}
    return None
