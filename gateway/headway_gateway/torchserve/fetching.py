"""A program: fetches the archives that a start names by URL into the model store, as a registration does.

    stdin    a line of JSON: {"store": ..., "allowed_urls": ..., "urls": [...]}; its end ends the program
    stdout   JSON: {url: {"path": ..., "downloaded": ...} or {"refused": ...}}

A program of its own because the command that starts a server is no part of the gateway, and because whoever
waits for it may go away: then its stdin ends.

Unlike a registration, a start takes what the store has already under the name that is in the URL: an earlier
start will have fetched it.

Knows: how many are fetched at a time. Must not know: what is in them, what is done with them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headway import logs
from headway_gateway.torchserve.archives import Archives
from headway_gateway.torchserve.refusal import Refusal

AT_A_TIME = 4


def fetch_all(archives: Archives, urls: Iterable[str], stop: threading.Event) -> dict[str, dict[str, Any]]:
    """What became of each."""

    def fetch(url: str) -> dict[str, Any]:
        try:
            found = archives.find(url, stop)
        except Refusal as error:
            return {"refused": error.message}
        return {"path": str(found.path), "downloaded": found.downloaded}

    wanted = list(dict.fromkeys(urls))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return dict(zip(wanted, pool.map(fetch, wanted), strict=True))


def main() -> None:
    logs.setup("info", "text")
    asked = json.loads(sys.stdin.buffer.readline())
    stop = threading.Event()
    threading.Thread(target=_watch, args=[stop], daemon=True).start()
    archives = Archives(asked["store"], asked["allowed_urls"], reuse=True)
    json.dump(fetch_all(archives, asked["urls"], stop), sys.stdout)
    sys.stdout.flush()


def _watch(stop: threading.Event) -> None:
    """Nobody waits any more: give up, and tidy up. (Not `sys.stdin`: a thread that reads that holds a lock,
    which the interpreter wants at its end.)"""
    os.read(sys.stdin.fileno(), 1)
    stop.set()


if __name__ == "__main__":
    main()
