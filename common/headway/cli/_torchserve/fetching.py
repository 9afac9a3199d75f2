"""The archives that a start names by URL: fetched by a program of the gateway's, before anything is served.

Knows: the program's name, what it is told and says. Must not know: HTTP, which URLs are allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from headway.torchserve.properties import Properties
from headway.torchserve.startup import Fetched, Startup

PROGRAM = (sys.executable, "-m", "headway_gateway.torchserve.fetching")


def fetched(
    properties: Properties, urls: Sequence[str], output: int, program: Sequence[str] = PROGRAM
) -> dict[str, Fetched]:
    """What became of each. Waits for all of them, perhaps for minutes. `output`: what the program logs to."""
    if not urls:
        return {}
    asked: dict[str, object] = {
        "store": properties.model_store,
        "allowed_urls": properties.allowed_urls,
        "urls": [*urls],
    }
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, process_group=0
    ) as process:
        said = _said(process, asked)
    try:
        return {url: Fetched(**fate) for url, fate in json.loads(said).items()}
    except ValueError:
        refused = f"what fetches archives ended with code {process.returncode}"
        return dict.fromkeys(urls, Fetched(refused=refused))


def _said(process: subprocess.Popen[bytes], asked: dict[str, object]) -> bytes:
    """Its stdin stays open meanwhile: the end of that is the end of whoever waits."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it is gone, and its code is told
        return b""
    return process.stdout.read()


def forget(fates: dict[str, Fetched], startup: Startup) -> None:
    """What was fetched and cannot be served goes, so that the next start fetches it again."""
    served = {one.archive for one in startup.registrations}
    for fate in fates.values():
        if fate.downloaded and fate.path not in served:
            Path(fate.path).unlink(missing_ok=True)
