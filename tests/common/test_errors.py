"""The error tree: codes travel and come back as the same class."""

from __future__ import annotations

import pytest

from headway import errors
from headway.errors import (
    ERROR_OF_CODE,
    BrokerUnreachable,
    CallerError,
    HeadwayError,
    InternalError,
    NoRoom,
    ServerError,
    SettingsError,
    WireError,
    WorkerLost,
    error_of,
)
from headway.messages import OK

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HeadwayError)]


@pytest.mark.parametrize("code", ERROR_OF_CODE)
def test_every_code_comes_back_as_the_class_it_stands_for(code):
    error = error_of(code, "why", 0.5)
    assert type(error).code == code
    assert (str(error), error.retry_after_s) == ("why", 0.5)


def test_no_two_errors_share_a_code_and_none_looks_like_success():
    codes = [c.code for c in CLASSES if c.code]
    assert sorted(codes) == sorted(set(codes)) == sorted(ERROR_OF_CODE)
    assert OK not in codes
    assert all(0 < code < 256 for code in codes)


@pytest.mark.parametrize("code", [1, 99, 255])
def test_a_code_from_a_newer_peer_is_an_internal_error(code):
    assert type(error_of(code, "new")) is InternalError


def test_only_what_can_pass_may_be_tried_again():
    retryable = {c for c in CLASSES if c.retryable}
    assert retryable == {NoRoom, *NoRoom.__subclasses__(), WorkerLost, BrokerUnreachable}


def test_an_error_without_a_message_says_its_name():
    assert str(WorkerLost()) == "WorkerLost"


def test_errors_about_the_wire_and_settings_never_travel():
    assert all(c.code == 0 for c in [WireError, *WireError.__subclasses__(), SettingsError])
    assert all(c.code for root in (CallerError, NoRoom, ServerError) for c in root.__subclasses__())


def test_the_tree_in_the_docstring_names_every_class():
    drawn = [line.split()[-1] for line in errors.__doc__.splitlines() if "──" in line] + ["HeadwayError"]
    names = {word for line in errors.__doc__.splitlines() for word in line.replace("─", " ").split()}
    assert drawn
    assert {c.__name__ for c in CLASSES} <= names
