"""Plays a case's steps against a server and puts what came back into the form that is recorded.

Knows: the forms of steps and of expectations (docs/torchserve-differential.md lists them), the masks.
Must not know: which server it is, pytest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.torchserve import rpc
from tests.torchserve.server import Server
from tests.torchserve.wire import TIMEOUT_S, Browser, Reply

CASES = Path(__file__).parent / "cases"
FILES = Path(__file__).parents[2]
MASKS = [
    (re.compile(mask["pattern"], re.MULTILINE), mask["replace"])
    for mask in json.loads((CASES / "masks.json").read_text())
]
UNTIL_TIMEOUT_S = 20.0
BOUNDARY = "----a-boundary-of-the-differential-set"
SHOWN_MAX = 4096  # bytes that are no text are recorded whole up to here, then as their digest

Step = Mapping[str, Any]
Seen = dict[str, Any]


def play(server: Server, steps: list[Step]) -> list[Seen]:
    return [play_step(server, step, server.browser) for step in steps]


def play_step(server: Server, step: Step, browser: Browser) -> Seen:
    if "together" in step:
        return {"together": together(server, step["together"])}
    if "find" in step:
        return {"found": len(list(server.folder.rglob(step["find"])))}
    if "sleep_ms" in step:
        time.sleep(step["sleep_ms"] / 1000)
        return {}
    if "log" in step:
        return logged(server, step)
    if "write" in step:
        server.folder.joinpath(server.filled(step["write"])).write_text(step["text"])
        return {}
    if "call" in step:
        return repeated(step, lambda: called(server, step))
    return repeated(step, lambda: seen(server, step, ask(server, step, browser)))


def together(server: Server, steps: list[Step]) -> list[Seen]:
    """All at once, each on a connection of its own. `after_ms` delays one, `timeout_ms` ends its waiting."""

    def one(step: Step) -> Seen:
        time.sleep(step.get("after_ms", 0) / 1000)
        browser = Browser(step.get("timeout_ms", TIMEOUT_S * 1000) / 1000)
        try:
            return play_step(server, step, browser)
        except TimeoutError:
            return {"no reply": True}
        finally:
            browser.close()

    with ThreadPoolExecutor(len(steps)) as threads:
        return list(threads.map(one, steps))


def repeated(step: Step, once: Any) -> Seen:
    """Once; with `until`, as long as the reply is another than that, within reason."""
    found: Seen = once()
    give_up = time.monotonic() + UNTIL_TIMEOUT_S
    while "until" in step and not is_awaited(step["until"], found) and time.monotonic() < give_up:
        time.sleep(0.1)
        found = once()
    return found


def is_awaited(until: Mapping[str, Any], found: Seen) -> bool:
    status = until.get("status", found.get("status"))
    return status == found.get("status") and bool(re.search(until.get("body", ""), json.dumps(found)))


def logged(server: Server, step: Step) -> Seen:
    """The last line with that in the server's logs, waited for: they are written behind the reply."""
    pattern = re.compile(step["log"])
    give_up = time.monotonic() + 5
    while True:
        said = [line for log in server.logs() for line in log.read_text(errors="replace").splitlines()]
        lines = [found.group() for line in said if (found := pattern.search(line))]
        if lines or time.monotonic() > give_up:
            return {"line": masked(server, step, lines[-1]) if lines else None}
        time.sleep(0.1)


def ask(server: Server, step: Step, browser: Browser) -> Reply:
    body, content_type = body_of(server, step.get("body"))
    said = {name.lower() for name in step.get("headers", {})}
    headers = [pair for pair in server.host(step["port"]) if pair[0].lower() not in said]
    if content_type and "content-type" not in said:
        headers.append(("Content-Type", content_type))
    if "transfer-encoding" not in said and (body or step["method"] in ("POST", "PUT")):
        headers.append(("Content-Length", str(len(body))))
    headers += [(k, server.filled(v)) for k, v in step.get("headers", {}).items() if v is not None]
    path = server.filled(step["path"])
    return browser.ask(server.ports[step["port"]], step["method"], path, headers, body)


def body_of(server: Server, said: Any) -> tuple[bytes, str]:
    """The bytes, and the content type that goes with the form unless the step says another."""
    if said is None or isinstance(said, str):
        return server.filled(said or "").encode(), ""
    if "parts" in said:
        return multipart(server, said["parts"]), f"multipart/form-data; boundary={BOUNDARY}"
    if "json" in said:
        return server.filled(json.dumps(said["json"])).encode(), "application/json"
    if "form" in said:
        return urllib.parse.urlencode(
            [tuple(pair) for pair in said["form"]]
        ).encode(), "application/x-www-form-urlencoded"
    if "file" in said:
        return (FILES / said["file"]).read_bytes(), ""
    if "fill" in said:
        return b"x" * int(said["fill"]), ""
    if "base64_of_file" in said:
        return base64.b64encode((FILES / said["base64_of_file"]).read_bytes()), ""
    return base64.b64decode(said["base64"]), ""


def multipart(server: Server, parts: list[Mapping[str, Any]]) -> bytes:
    whole = b""
    for part in parts:
        file = f'; filename="{part["filename"]}"' if "filename" in part else ""
        head = [f"--{BOUNDARY}", f'Content-Disposition: form-data; name="{part["name"]}"{file}']
        head += [f"Content-Type: {part['content_type']}"] if "content_type" in part else []
        body, _ = body_of(server, part["body"])
        whole += "\r\n".join(head).encode() + b"\r\n\r\n" + body + b"\r\n"
    return whole + f"--{BOUNDARY}--\r\n".encode()


def seen(server: Server, step: Step, reply: Reply) -> Seen:
    found: Seen = {"status": reply.status, "reason": reply.reason, "headers": {}}
    body = of_body(server, step, reply.body)
    for name, value in reply.headers:
        # The length of what is masked or left out varies with it.
        if name != "content-length" or ("only" not in step and body == raw(reply.body)):
            found["headers"][name] = masked(server, step, value)
    if step.get("chunks"):
        found["chunks"] = [masked(server, step, chunk.decode()) for chunk in reply.chunks]
    return found | body


def raw(body: bytes) -> Seen:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        if len(body) > SHOWN_MAX:
            return {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
        return {"base64": base64.b64encode(body).decode()}
    if len(text) > SHOWN_MAX and len(set(text)) == 1:
        return {"fill": text[0], "size": len(text)}
    return {"lines": text.split("\n")} if "\n" in text else {"text": text}


def of_body(server: Server, step: Step, body: bytes) -> Seen:
    if step.get("as") == "tensor":
        return of_tensor(body)
    found = raw(body)
    if "lines" not in found and "text" not in found:
        return found
    text = masked(server, step, body.decode())
    if "only" in step:
        text = "\n".join(sorted(line for line in text.split("\n") if re.search(step["only"], line)))
    return raw(text.encode())


def of_tensor(body: bytes) -> Seen:
    import io

    import torch

    tensor = torch.load(io.BytesIO(body), weights_only=True)
    return {"tensor": tensor.tolist(), "dtype": str(tensor.dtype)}


def masked(server: Server, step: Step, text: str) -> str:
    own = [(re.compile(p, re.MULTILINE), r) for p, r in step.get("masks", {}).items()]
    for pattern, replace in [*own, *MASKS]:
        text = pattern.sub(replace, text)
    paths = {"store": server.store, "workflows": server.workflows, "folder": server.folder}
    for name, path in paths.items():
        text = text.replace(str(path), "{" + name + "}")
    for name, port in server.ports.items():
        text = re.sub(rf"\b{port}\b", "{" + name + "}", text)
    return text


def called(server: Server, step: Step) -> Seen:
    metadata = [(name.lower(), server.filled(value)) for name, value in step.get("metadata", {}).items()]
    port = server.ports[step["port"]]
    found: Seen = rpc.call(port, step["call"], step["request"], metadata)
    return {key: masked_within(server, step, value) for key, value in found.items()}


def masked_within(server: Server, step: Step, value: Any) -> Any:
    if isinstance(value, list):
        return [masked_within(server, step, each) for each in value]
    if isinstance(value, dict):
        return {key: masked_within(server, step, each) for key, each in value.items()}
    return masked(server, step, value) if isinstance(value, str) else value
