"""What a TorchServe client is told instead of an answer: a status, the name of an exception, a message.

Knows: the names and texts that clients match on. Must not know: HTTP, gRPC, which route it was.
"""

from __future__ import annotations

import json
from http import HTTPStatus

NOT_FOUND_TEXT = "Requested resource is not found, please refer to API document."
NOT_ALLOWED_TEXT = "Requested method is not allowed, please refer to API document."


class Refusal(Exception):
    """`type` is the short name of the Java class that clients know."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message

    @property
    def body(self) -> bytes:
        """As it is sent over HTTP: indented, with a newline at the end."""
        return written({"code": self.status, "type": self.type, "message": self.message})


def written(document: object) -> bytes:
    """JSON as TorchServe's frontend writes it, whatever clients put into their names."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def bad_request(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "BadRequestException", message)


def no_resource() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "ResourceNotFoundException", NOT_FOUND_TEXT)


def no_method() -> Refusal:
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowedException", NOT_ALLOWED_TEXT)


def no_model(model: str) -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "ModelNotFoundException", f"Model not found: {model}")


def no_version(model: str, version: str) -> Refusal:
    """As inference says it. (Management's text for the default version differs by a colon.)"""
    text = f"Model version: {version} does not exist for model: {model}"
    return Refusal(HTTPStatus.NOT_FOUND, "ModelVersionNotFoundException", text)
