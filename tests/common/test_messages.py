"""The list of messages: complete, numbered once, every field with a limit."""

from __future__ import annotations

from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from headway import messages
from headway.messages import KINDS, Blob, Content, Many, Map, Message, Text, Uint

RULES = (Uint, Text, Blob, Content, Map, Many)
TUPLES = [c for c in vars(messages).values() if isinstance(c, type) and hasattr(c, "_fields")]


def rules(cls):
    return {name: get_args(hint) for name, hint in get_type_hints(cls, include_extras=True).items()}


def test_every_message_has_a_number_and_every_number_a_message():
    assert set(KINDS.values()) == set(get_args(Message))
    assert len(set(KINDS.values())) == len(KINDS)


def test_numbers_say_who_sends_to_whom():
    by_side = {side: [m for k, m in KINDS.items() if k // 16 == side] for side in range(4)}
    assert [len(side) for side in by_side.values()] == [7, 4, 8, 8]
    assert max(KINDS) < 64


@pytest.mark.parametrize("cls", TUPLES, ids=lambda c: c.__name__)
def test_every_field_has_one_rule(cls):
    hints = get_type_hints(cls, include_extras=True)
    assert set(hints) == set(cls._fields)
    for name, hint in hints.items():
        assert get_origin(hint) is Annotated, name
        rule = get_args(hint)[1:]
        assert len(rule) == 1
        assert isinstance(rule[0], RULES) or rule[0] in TUPLES


@pytest.mark.parametrize("cls", TUPLES, ids=lambda c: c.__name__)
def test_every_message_says_what_it_is_for(cls):
    assert cls.__doc__
    assert not cls.__doc__.startswith(cls.__name__ + "(")


def test_limits_are_positive_and_integers_fit_in_64_bits():
    for cls in TUPLES:
        for _, rule in rules(cls).values():
            if isinstance(rule, RULES):
                assert 0 < rule.max < 1 << 64


def test_every_tuple_is_a_message_or_part_of_one():
    inner = {r.of for c in TUPLES for _, r in rules(c).values() if isinstance(r, Many)}
    inner |= {r for c in TUPLES for _, r in rules(c).values() if r in TUPLES}
    assert set(TUPLES) == set(KINDS.values()) | {c for c in inner if c in TUPLES}
