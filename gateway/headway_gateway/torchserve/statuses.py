"""Status lines as TorchServe's frontend writes them.

Knows: where its reason phrases are others than Python's. Must not know: who answers what.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

# Where Python's names differ, in some version of it.
_PHRASES = {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
    425: "Unordered Collection",
}
_NAMELESS = (208, 226, 418, 451, 508)  # Python has names for them
_CLASSES = ("", "Informational", "Success", "Redirection", "Client Error", "Server Error")


def phrase_of(status: int) -> str:
    """The reason phrase of a status for which nobody has said one."""
    if status in _PHRASES:
        return _PHRASES[status]
    if status not in _NAMELESS:
        try:
            return HTTPStatus(status).phrase
        except ValueError:
            pass
    kind = _CLASSES[status // 100] if status < 600 else "Unknown Status"
    return f"{kind} ({status})"


@lru_cache(1024)
def status_line(status: int, phrase: str | None = None) -> bytes:
    """`phrase` None: the status' own."""
    return f"HTTP/1.1 {status} {phrase_of(status) if phrase is None else phrase}\r\n".encode("latin1")
