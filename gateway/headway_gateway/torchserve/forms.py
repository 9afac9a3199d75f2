"""Forms as TorchServe's frontend reads them: inputs by name, of several with one name the last.

Knows: multipart/form-data, urlencoded bodies and queries. Must not know: HTTP, models.

A part without a file's name has no media type, whatever it says; one with a file's name is octets unless it
says something else. No more than PARTS_MAX inputs.
"""

from __future__ import annotations

from email.message import Message
from functools import lru_cache
from urllib.parse import parse_qsl

from headway.body import BODY, Body
from headway.tensors import NAME_BYTES_MAX, Buffer
from headway_gateway.torchserve.refusal import bad_request

MULTIPART, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
PARTS_MAX = 256  # as many tensors as a request has
_OCTETS = "application/octet-stream"


@lru_cache(256)
def mime_type(said: str) -> str:
    """A media type without its parameters, as it was written."""
    return said.partition(";")[0].strip()


def boundary_of(content_type: str) -> bytes:
    """What parts the parts; empty if the body is no form of parts."""
    if mime_type(content_type).lower() != MULTIPART:
        return b""
    return _parameter(content_type, "content-type", "boundary").encode("latin1")


def parts_of(data: Buffer, boundary: bytes) -> dict[str, Body]:
    """Raises: Refusal for what is no form."""
    parts: dict[str, Body] = {}
    pieces = (b"\r\n" + bytes(data)).split(b"\r\n--" + boundary)
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return checked(parts)
        name, body = _part(piece)
        parts[name] = body
    raise bad_request("the form has no end: a line --BOUNDARY-- after its last part")


def fields_of(text: str) -> dict[str, Body]:
    """The inputs of a query or an urlencoded body. Raises: Refusal."""
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=10_000)
    except ValueError as error:
        raise bad_request(f"the fields cannot be read: {error}") from None
    return {name: Body(value.encode(), "") for name, value in fields if name}


def checked(parts: dict[str, Body]) -> dict[str, Body]:
    """Inputs that can travel. Raises: Refusal for others."""
    if len(parts) > PARTS_MAX:
        raise bad_request(f"a request has at most {PARTS_MAX} inputs, not {len(parts)}")
    for name in parts:
        if len(name.encode()) > NAME_BYTES_MAX:
            raise bad_request(f"the name of an input has at most {NAME_BYTES_MAX} bytes")
    return parts


def body_or_parts(data: Buffer, content_type: str) -> Body:
    """The body of a request as the broker takes it. An urlencoded one goes as it is: the worker reads it.
    Raises: Refusal."""
    kind = mime_type(content_type)
    if kind.lower() != MULTIPART or not (boundary := boundary_of(content_type)):
        return Body(data, kind)
    return Body(data, kind, parts_of(data, boundary))


def with_fields(query: str, body: Body) -> Body:
    """The body with the query's inputs before its own. Raises: Refusal."""
    fields = fields_of(query)
    if not fields:
        return body
    own = {BODY: body} if body.parts is None else body.parts
    if body.parts is None and body.content_type.lower() == URLENCODED:
        own = fields_of(bytes(body.data).decode("latin1"))
    return Body(body.data, body.content_type, checked({**fields, **own}))


def _part(piece: bytes) -> tuple[str, Body]:
    """Its name, and what it is. `piece` is what follows the boundary."""
    head, found, data = piece.partition(b"\r\n\r\n")
    headers = _headers(head)
    disposition = headers.get("content-disposition", "")
    name = _parameter(disposition, "content-disposition", "name")
    if not found or not name:
        raise bad_request("each part of a form needs a name, and an empty line before its data")
    if not _parameter(disposition, "content-disposition", "filename"):
        return name, Body(data, "")
    return name, Body(data, mime_type(headers.get("content-type", "")) or _OCTETS)


def _headers(head: bytes) -> dict[str, str]:
    try:
        lines = [line.partition(":") for line in head.decode().split("\r\n") if line]
    except UnicodeDecodeError as error:
        raise bad_request(f"a part of the form has a header that is not UTF-8: {error}") from None
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _parameter(said: str, header: str, name: str) -> str:
    message = Message()
    message[header] = said.replace("\r", " ").replace("\n", " ")
    found = message.get_param(name, "", header)
    return found if isinstance(found, str) else found[2]
