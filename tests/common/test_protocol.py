"""PROTOCOL.md says what the code does: its tables are compared with the code's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import headway.messages as m
from headway.errors import ERROR_OF_CODE
from headway.tensors import DTYPES, HEADER_BYTES_MAX, RANK_MAX, TENSORS_MAX
from headway.wire import PROTOCOL, encode

TEXT = (Path(m.__file__).parent.parent / "PROTOCOL.md").read_text()
TYPES = ("Id", "Count", "TimeoutMs", "Micros", "Flag", "Code", "Name", "Reason", "Path", "Nonce", "Packed")
PARTS = (
    m.Request, m.Reply, m.Copy, m.Batch, m.BatchRequest, m.Result, m.BatchReply, m.Piece, m.AgentWorker,
)  # fmt: skip


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first header cell is `heading`."""
    lines = TEXT.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def fields(cls: type[Any]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    return ", ".join(f"{name}: {type_name(hints[name])}" for name in cls._fields)


def type_name(hint: Any) -> str:
    for name in (*TYPES, "Options", "Facts"):
        if hint == getattr(m, name):
            return name
    rule = get_args(hint)[1]
    if isinstance(rule, m.Content):
        return "Content"
    if isinstance(rule, m.Many):
        return "list of " + (getattr(rule.of, "__name__", "") or "Id")
    return str(rule.__name__)


def test_every_message_is_listed_with_its_kind_and_fields() -> None:
    assert [(int(row[0]), row[1], row[4]) for row in table("kind")] == [
        (kind, cls.__name__, fields(cls)) for kind, cls in m.KINDS.items()
    ]


def test_every_part_is_listed_with_its_fields() -> None:
    assert table("part") == [[cls.__name__, fields(cls)] for cls in PARTS]


def test_the_limits_of_fields_are_those_of_the_code() -> None:
    limits = {row[0]: row[2] for row in table("type")}
    for name in TYPES:
        most = get_args(getattr(m, name))[1].max
        shown = re.sub(r"2\^(\d+) - 1", lambda power: str(2 ** int(power[1]) - 1), limits[name])
        assert str(most) in re.findall(r"\d+", shown), f"{name}: {limits[name]} is not {most}"
    assert str(get_args(m.Options)[1].max) in limits["Options"]
    assert str(get_args(m.Facts)[1].max) in limits["Facts"]
    assert str(m.REQUESTS_MAX) in limits["list of X"]
    assert f"at most {m.MESSAGE_BYTES_MAX} bytes" in TEXT


def test_every_error_is_listed_with_its_code_and_whether_to_try_again() -> None:
    assert [(int(code), name, again) for code, name, again in table("code")] == [
        (code, cls.__name__, "yes" if cls.retryable else "no") for code, cls in sorted(ERROR_OF_CODE.items())
    ]


def test_every_dtype_is_listed() -> None:
    assert table("dtype") == [
        [str(d.code), d.name, d.oip, "any" if d.name == "bytes" else str(d.numpy.itemsize)] for d in DTYPES
    ]


def test_states_questions_and_verbs_are_listed() -> None:
    assert tuple(row[0] for row in table("state | meaning")) == m.COPY_STATES
    assert tuple(row[0] for row in table("what")) == m.QUERIES
    assert tuple(row[0] for row in table("verb")) == m.VERBS


def test_frames_start_as_it_says() -> None:
    start = encode(m.Ping())[:5]
    assert start.hex(" ").upper() in TEXT
    assert f"`{PROTOCOL}`" in TEXT


def test_the_limits_of_packed_tensors_are_those_of_the_code() -> None:
    assert f"at most {HEADER_BYTES_MAX}" in TEXT
    assert f"at most {TENSORS_MAX} of them" in TEXT
    assert f"at most {RANK_MAX} dimensions" in TEXT
