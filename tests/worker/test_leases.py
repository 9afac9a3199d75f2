"""headway_worker.leases: until when the batch at hand must be answered."""

from __future__ import annotations

import math

from headway_worker.leases import Leases


def test_without_a_batch_nothing_is_due():
    assert Leases().until == math.inf


def test_the_lease_of_the_first_batch_runs_from_when_it_came():
    leases = Leases()
    leases.add(1, 2.0, 10.0)
    leases.add(2, 60.0, 11.0)
    assert leases.until == 12.0


def test_the_lease_of_the_next_batch_runs_from_when_the_first_one_ended():
    leases = Leases()
    leases.add(1, 2.0, 10.0)
    leases.add(2, 60.0, 10.0)
    leases.end(1, 11.5)
    assert leases.until == 71.5
    leases.end(2, 12.0)
    assert leases.until == math.inf


def test_a_batch_that_ends_before_the_first_one_gives_it_no_more_time():
    leases = Leases()
    leases.add(1, 2.0, 10.0)
    leases.add(2, 60.0, 10.0)
    leases.end(2, 11.0)
    assert leases.until == 12.0


def test_the_end_of_a_batch_that_was_not_given_means_nothing():
    leases = Leases()
    leases.end(7, 1.0)
    assert leases.until == math.inf
    leases.add(1, 2.0, 10.0)
    leases.end(7, 11.0)
    assert leases.until == 12.0


def test_a_batch_that_comes_after_all_were_answered_has_its_whole_lease():
    leases = Leases()
    leases.add(1, 2.0, 10.0)
    leases.end(1, 11.0)
    leases.add(2, 3.0, 50.0)
    assert leases.until == 53.0


def test_the_lease_of_a_batch_that_goes_on_begins_anew():
    leases = Leases()
    leases.add(1, 2.0, 10.0)
    leases.add(2, 60.0, 10.0)
    leases.renew(1, 11.0)
    assert leases.until == 13.0
    leases.renew(2, 11.5)
    leases.renew(3, 11.5)
    assert leases.until == 13.0, "only the one at hand goes on"
