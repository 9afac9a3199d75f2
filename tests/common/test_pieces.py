"""How requests and replies say that they are of pieces."""

from __future__ import annotations

import pytest

from headway.messages import Reply
from headway.pieces import FRAMING_BYTES, size_of, takes_pieces


@pytest.mark.parametrize(
    ("options", "takes"),
    [({"stream": "true"}, True), ({}, False), ({"stream": "false"}, False), ({"stream": True}, False)],
)
def test_a_request_says_so_with_one_word(options, takes):
    assert takes_pieces(options) is takes


def test_what_waits_counts_with_its_frame():
    assert size_of(Reply(1, 0, b"1234", {})) == FRAMING_BYTES + 4
