"""headway_gateway.company: when all who ask wait for an answer."""

from __future__ import annotations

from headway.company import COMPANY
from headway.outgoing import Asked
from headway_gateway.company import Company

ASKED = Asked("m", "", 0, {"own": 1}, b"")


def company(members: int, waiting: int, joined_at: float = 10.0) -> Company:
    made = Company()
    for _ in range(members):
        made.join(joined_at)
    made.waiting = waiting
    return made


def said(made: Company, now: float) -> object:
    return made.said(ASKED, now).options.get(COMPANY)


def test_the_request_of_the_last_member_that_did_not_wait_says_since_when_nobody_joined() -> None:
    asked = company(2, 2).said(ASKED, 12.5)
    assert asked.options == {"own": 1, COMPANY: 2500}
    assert ASKED.options == {"own": 1}, "others may ask with the same options"


def test_while_one_member_does_not_wait_nothing_is_said() -> None:
    assert company(3, 2).said(ASKED, 12.5) is ASKED


def test_a_member_that_leaves_is_not_waited_for() -> None:
    made = company(3, 2)
    made.leave()
    assert said(made, 11.0) == 1000


def test_a_newcomer_and_somebody_else_count_alike() -> None:
    made = company(1, 1)
    made.stir(12.0)
    assert said(made, 12.5) == 500
    made.join(13.0)
    made.waiting = 2
    assert said(made, 13.25) == 250
