"""A refusal as gRPC says it: a status, and details in two lines, the message and the name of a Java class.

Knows: which HTTP status becomes which of gRPC's, the packages of the exceptions' names. Must not know: calls,
connections, which of them was refused.
"""

from __future__ import annotations

from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from headway_gateway.torchserve.refusal import Refusal

_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    416: StatusCode.OUT_OF_RANGE,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
_TIMEOUT = "RequestTimeoutException"  # ours, for a time that is over; a handler's own 408 has another name
_MODEL = (
    "InvalidKeyException",
    "InvalidModelException",
    "ModelException",
    "ModelNotFoundException",
    "ModelVersionNotFoundException",
)
_PACKAGES = {
    **dict.fromkeys(_MODEL, "org.pytorch.serve.archive.model"),
    "DownloadArchiveException": "org.pytorch.serve.archive",
    "InvalidArchiveURLException": "org.pytorch.serve.archive.utils",
    "WorkerInitializationException": "org.pytorch.serve.wlm",
    "IllegalArgumentException": "java.lang",
    "IndexOutOfBoundsException": "java.lang",
}
_PACKAGE = "org.pytorch.serve.http"  # of all others


def code_of(refusal: Refusal) -> StatusCode:
    """As TorchServe translates HTTP's."""
    if refusal.type == _TIMEOUT:
        return StatusCode.DEADLINE_EXCEEDED
    if found := _CODES.get(refusal.status):
        return found
    if 400 <= refusal.status < 500:
        return StatusCode.FAILED_PRECONDITION
    return StatusCode.INTERNAL if 500 <= refusal.status < 600 else StatusCode.UNKNOWN


def details_of(refusal: Refusal) -> str:
    """The message, and what `type` is called in full; the message alone where there is no `type`."""
    return f"{refusal.message}\n{class_of(refusal)}" if refusal.type else refusal.message


def class_of(refusal: Refusal) -> str:
    """The exception's name with its package."""
    return f"{_PACKAGES.get(refusal.type, _PACKAGE)}.{refusal.type}"


def message_of(refusal: Refusal) -> Status:
    """The refusal inside a message, where a stream goes on after it."""
    status = Status(code=code_of(refusal).value[0], message=refusal.message)
    status.details.add().Pack(ErrorInfo(reason=class_of(refusal)))
    return status
