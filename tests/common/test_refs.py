"""headway.refs: which options refer to shared memory."""

from __future__ import annotations

import pytest

from headway.refs import has_slots, without_reply_slot, without_slots

SLOT, ROOM = {"slot": ["s", 0, 1, 64, 5]}, {"reply_slot": ["s", 0, 1, 64]}


@pytest.mark.parametrize(
    ("options", "has"), [({}, False), ({"form": "body"}, False), (SLOT, True), (ROOM, True)]
)
def test_a_request_has_slots_when_an_option_names_one(options, has):
    assert has_slots(options) is has


def test_a_request_that_is_sent_again_has_no_reply_slot_and_the_model_sees_none_at_all():
    options = {**SLOT, **ROOM, "parameters": {"k": 1}}
    assert without_reply_slot(options) == {**SLOT, "parameters": {"k": 1}}
    assert without_slots(options) == {"parameters": {"k": 1}}
