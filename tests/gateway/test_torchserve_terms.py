"""What a registration says of requests, looked at now and then."""

from __future__ import annotations

from headway.torchserve.registration import Registration
from headway_gateway.inference import Target
from headway_gateway.torchserve.asking import WITHOUT_LIMIT_S
from headway_gateway.torchserve.terms import COUNT_S, TARGETS_MAX, TermsOf

M = Target("m", "")


class Asked:
    """A registry that counts the questions."""

    def __init__(self) -> None:
        self.found: Registration | None = None
        self.times = 0

    def of(self, model: str, version: str = "") -> Registration | None:
        self.times += 1
        return self.found


def test_what_was_seen_counts_for_a_while() -> None:
    registry = Asked()
    terms = TermsOf(registry)
    assert terms.of(M, 0.0)[1:] == (WITHOUT_LIMIT_S, None), "nobody knows yet"
    registry.found = Registration("m", "1", "m.mar", "/m.mar", client_timeout_ms=1500)
    assert terms.of(M, COUNT_S - 0.01).has_sequences is None
    assert terms.of(M, COUNT_S)[1:] == (1.5, False)
    assert registry.times == 2


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    terms = TermsOf(Asked())
    for i in range(TARGETS_MAX + 5):
        terms.of(Target(f"m{i}", ""), 0.0)
    assert len(terms._seen) == 5
