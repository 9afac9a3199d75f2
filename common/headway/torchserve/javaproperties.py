"""Java's `.properties` files: read, and written as Java writes them.

Knows: comments, continued lines, escapes, what separates a key from its value. Must not know: which keys
there are.

Java reads such files as Latin-1; here they may be UTF-8 as well, which is tried first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from headway.errors import SettingsError

_SPACE = " \t\f"
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|u|.)", re.DOTALL)
_LINES = re.compile(r"\r\n|\n|\r")
_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f"}
_ESCAPED |= {letter: f"\\{letter}" for letter in "=:#!"}


def parse(content: bytes) -> dict[str, str]:
    """The last value of each key counts. Raises: SettingsError for an escape that is none."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return dict(_split(line) for line in _logical_lines(text))


def written(values: Mapping[str, str]) -> str:
    """Lines that `parse`, and Java, read back."""
    return "".join(f"{_escaped(key, is_key=True)}={_escaped(value)}\n" for key, value in values.items())


def _logical_lines(text: str) -> Iterator[str]:
    """Without comments and empty ones; continued ones in one."""
    begun = ""
    for line in _LINES.split(text):
        stripped = line.lstrip(_SPACE)
        if not begun and (not stripped or stripped[0] in "#!"):
            continue
        begun += stripped
        slashes = len(begun) - len(begun.rstrip("\\"))
        if slashes % 2:
            begun = begun[:-1]
            continue
        if begun:
            yield begun
        begun = ""
    if begun:
        yield begun


def _split(line: str) -> tuple[str, str]:
    """Key and value: apart at the first `=`, `:` or space that is not escaped."""
    end = 0
    while end < len(line) and line[end] not in f"=:{_SPACE}":
        end += 2 if line[end] == "\\" else 1
    rest = line[end:].lstrip(_SPACE)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_SPACE)
    return _unescaped(line[:end]), _unescaped(rest)


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(_meant, text)
    return plain.encode("utf-16", "surrogatepass").decode(
        "utf-16", "replace"
    )  # two escapes may be one letter


def _meant(found: re.Match[str]) -> str:
    said = found[1]
    if said == "u":
        raise SettingsError(f"\\u is not followed by four hexadecimal digits in {found.string!r:.80}")
    if len(said) == 5:
        return chr(int(said[1:], 16))
    return _LETTERS.get(said, said)


def _escaped(text: str, is_key: bool = False) -> str:
    out = "".join(_ESCAPED.get(letter, letter) for letter in text)
    if is_key:
        out = out.replace(" ", "\\ ")
    elif out.startswith(" "):
        out = f"\\{out}"
    return "".join(letter if " " <= letter <= "~" else _unicode(letter) for letter in out)


def _unicode(letter: str) -> str:
    """In UTF-16, as Java counts."""
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4].upper()}" for i in range(0, len(units), 4))
