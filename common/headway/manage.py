"""The blocking client of the management address: one method for each order, over HTTP.

    management = Management("127.0.0.1:8081", token)
    management.scale("resnet", 2, 4, wait_s=60)

What fails raises the error that it was at the broker. With `wait_s` a call comes back when what was ordered
is so, else when it was ordered. Each call has a connection of its own, so any number of threads may call.

Knows: the routes and their bodies. Must not know: the command line, where the token comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote

from headway.errors import (
    ERROR_OF_CODE,
    BrokerUnreachable,
    DeadlineExceeded,
    HeadwayError,
    InternalError,
    InvalidInput,
    NotReady,
    RemoteProtocolError,
    SettingsError,
    TooLarge,
    Unauthorized,
    UnknownModel,
)
from headway.tcp import reachable

ASK_TIMEOUT_S = 25.0
MARGIN_S = 10.0  # the server says first that the time is over
FETCH_S = 3600.0  # to register by URL; the server's own limit ends it earlier
_BY_NAME = {cls.__name__: cls for cls in (*ERROR_OF_CODE.values(), BrokerUnreachable)}
_BY_STATUS: dict[int, type[HeadwayError]] = {
    400: InvalidInput,
    401: Unauthorized,
    403: Unauthorized,
    404: UnknownModel,
    413: TooLarge,
    503: NotReady,
    504: DeadlineExceeded,
}


class Management:
    """The orders. `address` is HOST:PORT. Raises: SettingsError for one that is none."""

    def __init__(self, address: str, token: str, timeout_s: float = ASK_TIMEOUT_S) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingsError(f"management: {address!r} is not HOST:PORT")
        self.address = address
        self._host = reachable(host.strip("[]"))
        self._port = int(port)
        self._token = token
        self.timeout_s = timeout_s

    # ---- questions ----

    def state(self) -> dict[str, Any]:
        """All that the broker knows; see PROTOCOL.md, section 9."""
        return self._ask("GET", "/state")

    def describe(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """The versions of a model, or one of them, or those of all models."""
        path = _model(model, version) if model else "/admin/models"
        models = self._ask("GET", path).get("models")
        if not isinstance(models, list):
            raise RemoteProtocolError("an answer without models")
        return models

    # ---- orders ----

    def register(self, path: str, wait_s: float | None = None) -> dict[str, Any]:
        """Serve what is in the model store as NAME or NAME/VERSION."""
        return self._ask("POST", "/admin/models", {"path": path}, wait_s)

    def register_url(
        self, url: str, name: str = "", version: str = "", wait_s: float | None = None
    ) -> dict[str, Any]:
        """Have an archive fetched into the model store, and serve it."""
        said = {"name": name, "version": version}
        body = {"url": url, **{key: value for key, value in said.items() if value}}
        return self._ask("POST", "/admin/models", body, wait_s, FETCH_S)

    def unregister(self, model: str, version: str = "") -> dict[str, Any]:
        """Serve it no longer; its folder stays where it is."""
        return self._ask("DELETE", _model(model, version))

    def rescan(self) -> dict[str, Any]:
        """Look what has changed in the model store."""
        return self._ask("POST", "/admin/rescan", {})

    def scale(
        self,
        model: str,
        least: int,
        most: int | None = None,
        version: str = "",
        wait_s: float | None = None,
    ) -> dict[str, Any]:
        """Between how many copies there shall be; as many as `least` where nothing is said of `most`."""
        body: dict[str, Any] = {"min": least, "max": least if most is None else most}
        if version:
            body["version"] = version
        return self._ask("POST", f"{_model(model)}/scale", body, wait_s)

    def default(self, model: str, version: str, wait_s: float | None = None) -> dict[str, Any]:
        """The version that requests get which name none."""
        return self._ask("POST", f"{_model(model)}/default", {"version": version}, wait_s)

    def split(self, model: str, weights: Mapping[str, float], wait_s: float | None = None) -> dict[str, Any]:
        """Share the requests that name no version out by weight; no weights end that."""
        return self._ask("POST", f"{_model(model)}/split", {"weights": dict(weights)}, wait_s)

    def drain(self, worker: str, wait_s: float | None = None) -> dict[str, Any]:
        """Have a worker finish what it has, and leave."""
        return self._ask("POST", f"/admin/workers/{quote(worker, safe='')}/drain", {}, wait_s)

    def workers(self, host: str, count: int | None) -> dict[str, Any]:
        """How many workers a host's agent shall run; None: as many as its own settings say."""
        return self._ask("PUT", f"/admin/hosts/{quote(host, safe='')}", {"workers": count})

    # ---- HTTP ----

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        wait_s: float | None = None,
        work_s: float = 0.0,
    ) -> dict[str, Any]:
        """`work_s`: how long the server may work before it begins to wait."""
        limit_s = self.timeout_s + work_s
        if wait_s is not None:
            body = {**(body or {}), "wait": True, "timeout_ms": max(1, round(wait_s * 1000))}
            limit_s = wait_s + MARGIN_S + work_s
        connection = HTTPConnection(self._host, self._port, timeout=limit_s)
        try:
            connection.request(method, path, self._body(body), self._headers())
            response = connection.getresponse()
            return _answer(response, response.read())
        except TimeoutError:
            raise BrokerUnreachable(f"{self.address} did not answer within {limit_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise BrokerUnreachable(f"{self.address}: {_reason(error)}") from None
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        if not self._token.isascii() or not self._token.isprintable():
            raise Unauthorized("that is no management token")
        return {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}

    @staticmethod
    def _body(body: dict[str, Any] | None) -> bytes | None:
        return None if body is None else json.dumps(body).encode()


def _model(name: str, version: str = "") -> str:
    path = f"/admin/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _answer(response: HTTPResponse, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if response.status >= 400:
        raise _error(response, found if isinstance(found, dict) else {})
    if not isinstance(found, dict):
        raise RemoteProtocolError("what answers there is not Headway's management: its answer is no object")
    return found


def _error(response: HTTPResponse, body: dict[str, Any]) -> HeadwayError:
    by_status = _BY_STATUS.get(response.status, InternalError)
    cls: type[HeadwayError] = _BY_NAME.get(str(body.get("error")), by_status)
    again = response.getheader("Retry-After", "")
    message = str(body.get("message") or f"{response.status} {response.reason}")
    return cls(message, float(again) if again.isdecimal() else None)
