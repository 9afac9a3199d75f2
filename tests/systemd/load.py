"""Asks the gateway without end, on a new connection for each request and on kept ones, until its stdin ends.

Prints what came of it as JSON: `ok`, `failed` (reasons), `slowest_s`. Run by test_real.py in the container's
network. A kept connection that was closed while it was idle is opened again, as HTTP clients do: only a
request that was sent and not answered is a failure.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

PATH, HEADERS = "/v2/models/double/infer", {"content-type": "application/json"}


class Asker(threading.Thread):
    """One connection after the other, or one for all."""

    def __init__(self, host: str, body: str, keep: bool) -> None:
        super().__init__()
        self.ok, self.slowest_s, self.reopened = 0, 0.0, 0
        self.failed: list[str] = []
        self.stopping = False
        self._host, self._body, self._keep = host, body, keep
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self.stopping:
            started = time.monotonic()
            try:
                self._ask()
                self.ok += 1
            except Exception as error:
                self.failed.append(repr(error))
                self._connection = None
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            time.sleep(0.002)

    def _ask(self) -> None:
        is_old = self._connection is not None
        connection = self._connection or http.client.HTTPConnection(self._host, timeout=20)
        try:
            connection.request("POST", PATH, self._body, HEADERS)
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not is_old:
                raise
            self._connection = None
            self.reopened += 1
            return self._ask()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {text!r}")
        self._connection = connection if self._keep and not answer.will_close else None
        return None


def main() -> None:
    askers = [Asker(sys.argv[1], sys.argv[2], keep=number % 2 == 0) for number in range(6)]
    for asker in askers:
        asker.start()
    sys.stdin.read()
    for asker in askers:
        asker.stopping = True
    for asker in askers:
        asker.join()
    said = {
        "ok": sum(asker.ok for asker in askers),
        "failed": [reason for asker in askers for reason in asker.failed],
        "reopened": sum(asker.reopened for asker in askers),
        "slowest_s": max(asker.slowest_s for asker in askers),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
