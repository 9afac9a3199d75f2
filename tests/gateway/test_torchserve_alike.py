"""headway_gateway.torchserve.alike: nobody can tell a request from one that was made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.body import Body
from headway.errors import TooLarge, UnknownModel
from headway.lent import SHM_BYTES_MIN, Lender
from headway.messages import NAME_CHARS_MAX
from headway.outgoing import Asked
from headway_gateway.inference import Target
from headway_gateway.lane import Head
from headway_gateway.torchserve import asking
from headway_gateway.torchserve.alike import Alike

NOWHERE = Lender("", 0)
M = Target("m", "1.0")


def head(**headers: bytes) -> Head:
    said = {name.encode().replace(b"_", b"-"): value for name, value in headers.items()}
    return Head({b"content-type": b"text/plain; charset=x", **said})


def anew(id: str, body: bytes) -> Asked:
    headers = head().spelled
    return asking.ask(
        M, Body(body, "text/plain"), headers, request_id=id, explain=False, url_path="", stream=True
    )


def known(asked: Asked) -> Asked:
    return asked._replace(options_bytes=0)


def test_each_is_as_if_it_were_the_first() -> None:
    alike = Alike(M, head(), NOWHERE)
    for i, body in enumerate((b"one", b"two", b"", b"three", b"four", b"eight888", b"nine9999")):
        assert known(alike.asked(str(i), body, None)) == anew(str(i), body)
        assert alike.asked(str(i), body, None).options_bytes > 0, "nobody has to look again"


def test_what_was_asked_does_not_change_with_the_next() -> None:
    alike = Alike(M, head(), NOWHERE)
    first, second, third = (alike.asked(id, b"x", None) for id in "abc")
    assert [asked.options["request_id"] for asked in (first, second, third)] == ["a", "b", "c"]


def test_a_large_body_goes_into_shared_memory_each_time(tmp_path: Path) -> None:
    lender = Lender(f"ipc://{tmp_path}/broker.sock", 1 << 22)
    alike = Alike(M, head(), lender)
    for _ in range(3):
        assert alike.asked("i", bytes(SHM_BYTES_MIN), None).lent
        received = lender.receive(SHM_BYTES_MIN, 0)
        assert received
        assert alike.asked("i", received.view, received).lent == (received.lent,)
    lender.close()


@pytest.mark.parametrize(
    ("target", "said", "error"),
    [(Target("m" * (NAME_CHARS_MAX + 1), ""), b"", UnknownModel), (M, b"x" * 40_000, TooLarge)],
)
def test_what_cannot_travel_is_refused_each_time(target: Target, said: bytes, error: type[Exception]) -> None:
    alike = Alike(target, head(x=said), NOWHERE)
    for _ in range(3):
        with pytest.raises(error):
            alike.asked("i", b"x", None)
