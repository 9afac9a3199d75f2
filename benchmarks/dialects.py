"""One request as bytes for each HTTP dialect, and where an answer ends; pure.

    oip         Open Inference Protocol, the tensor as binary data both ways (Headway, Triton)
    torchserve  /predictions/MODEL, the tensor's bytes as the body both ways
    mosec       /inference, the same

Knows: HTTP/1.1, as far as these servers speak it (a Content-Length in every answer).
Must not know: sockets.
"""

from __future__ import annotations

import json

from benchmarks.inputs import Example


def http_request(dialect: str, address: str, example: Example) -> bytes:
    """A whole request: head and body."""
    path, headers, body = DIALECTS[dialect](example)
    lines = [f"POST {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _oip(example: Example) -> tuple[str, list[str], bytes]:
    x = example.x
    tensor = {"name": "x", "shape": [1, *x.shape], "datatype": "FP32"}
    inputs = [{**tensor, "parameters": {"binary_data_size": x.nbytes}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = [f"Inference-Header-Content-Length: {len(head)}"]
    return f"/v2/models/{example.model}/infer", headers, head + x.tobytes()


def _raw(path: str, example: Example) -> tuple[str, list[str], bytes]:
    return path, ["Content-Type: application/octet-stream"], example.x.tobytes()


DIALECTS = {
    "oip": _oip,
    "torchserve": lambda example: _raw(f"/predictions/{example.model}", example),
    "mosec": lambda example: _raw("/inference", example),
}


def split_answer(data: bytes) -> tuple[bool, bytes] | None:
    """Whether the status is 200, and the body; None while bytes are missing."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    _, _, rest = head.lower().partition(b"content-length:")
    if len(body) < int(rest.partition(b"\r\n")[0]):
        return None
    return head.startswith(b"HTTP/1.1 200"), body
