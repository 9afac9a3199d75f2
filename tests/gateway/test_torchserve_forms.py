"""headway_gateway.torchserve.forms: inputs by name, out of forms and queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.body import Body
from headway_gateway.torchserve.forms import PARTS_MAX, body_or_parts, boundary_of, with_fields
from headway_gateway.torchserve.refusal import Refusal

FORM = "multipart/form-data; boundary=B0"


def form(*parts: tuple[str, bytes]) -> bytes:
    shown = b"".join(
        b"--B0\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (h.encode(), d) for h, d in parts
    )
    return shown + b"--B0--\r\n"


def inputs(body: Body) -> dict[str, tuple[bytes, str]]:
    return {name: (bytes(part.data), part.content_type) for name, part in (body.parts or {}).items()}


def test_a_part_has_a_media_type_only_if_it_is_a_file() -> None:
    data = form(
        ('name="a"', b"1"),
        ('name="b"\r\nContent-Type: text/plain', b"2"),
        ('name="c"; filename="f"', b"3"),
        ('name="d"; filename="f"\r\nContent-Type: application/json; charset=utf-8', b"{}"),
        ("name=e", b"\xff\r\n--B\r\n"),
        ('name="\xe9 f"', b""),
    )
    assert inputs(body_or_parts(data, FORM)) == {
        "a": (b"1", ""), "b": (b"2", ""), "c": (b"3", "application/octet-stream"),
        "d": (b"{}", "application/json"), "e": (b"\xff\r\n--B\r\n", ""), "\xe9 f": (b"", ""),
    }  # fmt: skip


def test_of_several_parts_with_one_name_the_last_counts() -> None:
    assert inputs(body_or_parts(form(('name="a"', b"1"), ('name="a"', b"2")), FORM)) == {"a": (b"2", "")}


@given(st.dictionaries(st.text("abc \xe9_-.", min_size=1), st.binary(), min_size=1, max_size=5))
def test_whatever_the_parts_hold_they_come_back(parts: dict[str, bytes]) -> None:
    boundary = b"=_" + b"x" * 20
    data = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, name.encode(), held)
        for name, held in parts.items()
    )
    said = f'multipart/form-data; boundary="{boundary.decode()}"'
    assert {n: d for n, (d, _) in inputs(body_or_parts(data + b"--%s--" % boundary, said)).items()} == parts


def test_a_form_without_parts_is_no_inputs() -> None:
    assert body_or_parts(b"--B0--\r\n", FORM).parts == {}


@pytest.mark.parametrize(
    ("data", "about"),
    [
        (b"junk", "no end"),
        (form(('name="a"', b"1"))[:-9], "no end"),
        (form(('x="a"', b"1")), "needs a name"),
        (b"--B0\r\nContent-Disposition: form-data; name=a\r\n--B0--", "empty line"),
        (form(*[(f'name="{i}"', b"") for i in range(PARTS_MAX + 1)]), "at most 256 inputs"),
        (form((f'name="{"n" * 257}"', b"")), "at most 256 bytes"),
        (b"--B0\r\n\xff: x\r\n\r\n--B0--", "UTF-8"),
    ],
)
def test_what_is_no_form_is_refused_with_the_reason(data: bytes, about: str) -> None:
    with pytest.raises(Refusal) as caught:
        body_or_parts(data, FORM)
    assert caught.value.status == 400 and about in caught.value.message


@pytest.mark.parametrize(
    ("said", "kind"),
    [("text/plain; charset=utf-8", "text/plain"), ("", ""), ("Application/JSON;x=1", "Application/JSON"),
     ("multipart/form-data", "multipart/form-data"), ("multipart/mixed; boundary=B0", "multipart/mixed"),
     ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded")],
)  # fmt: skip
def test_every_other_body_is_one_input_with_its_type_as_it_was_written(said: str, kind: str) -> None:
    assert body_or_parts(b"a=1", said) == Body(b"a=1", kind)


def test_a_boundary_may_be_quoted() -> None:
    assert boundary_of('Multipart/Form-Data; boundary="a b"') == b"a b"


def test_a_query_gives_inputs_that_the_body_s_own_replace() -> None:
    body = with_fields("a=1&a=2&b&c=%20+x", Body(b"q", "text/plain"))
    assert inputs(body) == {"a": (b"2", ""), "b": (b"", ""), "c": (b"  x", ""), "body": (b"q", "text/plain")}
    assert inputs(with_fields("body=2", Body(b"q", ""))) == {"body": (b"q", "")}
    urlencoded = Body(b"a=3&d=4", "application/x-www-form-urlencoded")
    assert inputs(with_fields("a=1&b=2", urlencoded)) == {"a": (b"3", ""), "b": (b"2", ""), "d": (b"4", "")}
    parts = Body(b"", "", {"a": Body(b"p", "")})
    assert inputs(with_fields("a=1&b=2", parts)) == {"a": (b"p", ""), "b": (b"2", "")}


def test_without_a_query_a_body_stays_as_it_is() -> None:
    body = Body(b"a=1", "application/x-www-form-urlencoded")
    assert with_fields("", body) is body
