"""What a handler is told about its model and each request, and what it says about each reply.

Knows: the names that handlers use. Must not know: where requests come from.

The reply's status, phrase and headers stand in a `RequestProcessor`, one for each of the data.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from headway_worker.torchserve.ts import __version__

_NO_STATUS: tuple[Any, Any] = (200, None)


class RequestProcessor:
    """One request's headers, and what is to be said with its reply."""

    def __init__(self, request_header: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """A function is Headway's own: it is called when the handler looks at a header for the first time."""
        self._request_header = request_header
        self._headers: dict[str, Any] = {}
        self._status = _NO_STATUS

    @cached_property
    def _asked(self) -> dict[str, Any]:
        return self._request_header() if callable(self._request_header) else self._request_header

    @property
    def says_nothing(self) -> bool:
        """Headway's own: nothing is to be said with the reply."""
        return not self._headers and self._status is _NO_STATUS

    def get_request_property(self, key: str) -> Any:
        return self._asked.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        return self._asked

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status = (code, reason_phrase)

    def get_response_status_code(self) -> Any:
        return self._status[0]

    def get_response_status_phrase(self) -> Any:
        return self._status[1]

    def add_response_property(self, key: str, value: Any) -> None:
        self._headers[key] = value

    def get_response_headers(self) -> dict[str, Any]:
        return self._headers

    def get_response_header(self, key: str) -> Any:
        return self._headers.get(key)


STREAM_NEXT = "ts_stream_next"
Send = Callable[[Any, RequestProcessor], None]


def _nobody(idx: int) -> None:
    """Every reply goes in one."""


class Context:
    """The same object at every call; what belongs to a call is put into it before."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any],
        batch_size: int,
        gpu: int | None,
        mms_version: str = __version__,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config: dict[str, Any] = {}
        self.request_ids: dict[int, str] | None = None
        self.request_processor: Any = None
        self.metrics = metrics
        self.stopping_criteria: Any = None
        self.cl_socket: Any = None  # there is none here; see handler_utils.utils
        self.header_key_sequence_id = os.environ.get("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.environ.get(
            "TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start"
        )
        self.header_key_sequence_end = os.environ.get("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")
        self.may_unpickle = False  # Headway's own: whether weights may be pickled objects
        self._sent: dict[int, list[Any]] = {}
        self._sender_of: Callable[[int], Send | None] = _nobody

    def for_a_call(self) -> Context:
        """Headway's own: another one of the same model, for a call that runs beside others. What a handler
        has put into this one is the same object there."""
        made = copy.copy(self)
        made.metrics = copy.copy(self.metrics)
        return made

    def rides_on(self, idx: int, result: Any) -> bool:
        """Headway's own: whether a handler of a running batch wants to be called again for a request, by its
        stopping criteria; says so in the reply's headers. Raises: what the criteria raise."""
        if self.stopping_criteria:
            stops = self.stopping_criteria[idx](result)
            if stops is not None:
                self.set_response_header(idx, STREAM_NEXT, "false" if stops else "true")
        elif self.get_response_headers(idx).get(STREAM_NEXT) == "true":
            self.set_response_header(idx, STREAM_NEXT, "false")
        return bool(self.get_response_headers(idx).get(STREAM_NEXT) == "true")

    def begin(
        self,
        ids: dict[int, str],
        processors: Sequence[RequestProcessor],
        sender_of: Callable[[int], Send | None] = _nobody,
    ) -> None:
        """Headway's own: another call begins. `sender_of` an index: who takes parts of its reply at once."""
        self.request_ids = ids
        self.request_processor = list(processors)
        self._sent = {}
        self._sender_of = sender_of
        if self.metrics is not None:
            self.metrics.begin(ids)

    def send(self, idx: int, result: Any) -> None:
        """Headway's own: send a part of a reply that comes before the returned one, or keep it where the
        caller wants its reply in one."""
        if sender := self._sender_of(idx):
            sender(result, self.request_processor[idx])
        else:
            self._sent.setdefault(idx, []).append(result)

    def sent(self, idx: int) -> list[Any]:
        """Headway's own: the parts that were kept, in order."""
        return self._sent.get(idx, [])

    def get_request_id(self, idx: int = 0) -> str | None:
        return (self.request_ids or {}).get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        headers: dict[str, Any] = self.request_processor[idx].get_request_properties()
        return headers

    def get_sequence_id(self, idx: int) -> Any:
        return self.get_request_header(idx, self.header_key_sequence_id)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> Any:
        return self.get_response_headers(idx).get("content-type")

    def set_response_header(self, idx: int, key: str, value: Any) -> None:
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, Any]:
        headers: dict[str, Any] = self.request_processor[idx].get_response_headers()
        return headers

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Does nothing where there is no such request, as while a handler is initialized."""
        if self.request_processor and idx < len(self.request_processor):
            self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def get_response_status(self, idx: int) -> tuple[Any, Any]:
        about = self.request_processor[idx]
        return about.get_response_status_code(), about.get_response_status_phrase()

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for about in self.request_processor or ():
            about.report_status(code, reason_phrase=phrase)
