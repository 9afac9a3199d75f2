"""Java's `.properties` files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import SettingsError
from headway.torchserve.javaproperties import parse, written

FILE = rb"""
# a comment
! another = one
inference_address=http://0.0.0.0:8080
  indented = yes
colon:1
space 2
escaped\ key\==a\=b
tabs	=	x
empty=
alone
models={\
  "noop": {\
    "1.0": {"batchSize": 4}\
  }\
}
path=C:\\temp\\n
letters=\u00e4\n\tz\q
twice=1
twice=2
last=on\
"""


def test_a_file_is_read_as_java_reads_it() -> None:
    assert parse(FILE) == {
        "inference_address": "http://0.0.0.0:8080",
        "indented": "yes",
        "colon": "1",
        "space": "2",
        "escaped key=": "a=b",
        "tabs": "x",
        "empty": "",
        "alone": "",
        "models": '{"noop": {"1.0": {"batchSize": 4}}}',
        "path": "C:\\temp\\n",
        "letters": "ä\n\tzq",
        "twice": "2",
        "last": "on",
    }


def test_a_comment_is_not_continued_and_windows_lines_end_like_others() -> None:
    assert parse(b"# one \\\na=1\r\nb=2\\\r\n  3\rc=4") == {"a": "1", "b": "23", "c": "4"}


def test_letters_may_be_utf_8_or_latin_1() -> None:
    assert parse("a=ä".encode()) == parse("a=ä".encode("latin-1")) == {"a": "ä"}


def test_an_escape_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"four hexadecimal digits in 'b..u12'"):
        parse(rb"a=b\u12")


def test_what_a_snapshot_of_torchserve_looks_like_is_what_is_written() -> None:
    text = written({"inference_address": "http://127.0.0.1:8080", "model_snapshot": '{\n  "name": "ü"\n}'})
    assert text == (
        "inference_address=http\\://127.0.0.1\\:8080\n" + 'model_snapshot={\\n  "name"\\: "\\u00FC"\\n}\n'
    )


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text()))
def test_what_was_written_is_read_again(values: dict[str, str]) -> None:
    assert parse(written(values).encode()) == values
