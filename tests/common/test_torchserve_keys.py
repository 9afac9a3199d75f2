"""`key_file.json`: made, checked, renewed; shared by several processes."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from headway.errors import SettingsError
from headway.torchserve.keys import API, INFERENCE, MANAGEMENT, Keys, parse_keys


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_393_864.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key_of(path: Path, kind: str) -> str:
    key: str = json.loads(path.read_text())[kind]["key"]
    return key


def made(tmp_path: Path, clock: Clock) -> Keys:
    keys = Keys(tmp_path / "key_file.json", 60.0, clock)
    keys.make()
    return keys


def test_the_file_is_as_torchserve_writes_it_and_for_nobody_else_to_read(
    tmp_path: Path, clock: Clock
) -> None:
    path = made(tmp_path, clock).path
    found = json.loads(path.read_text())
    assert list(found) == [MANAGEMENT, INFERENCE, API]
    assert list(found[MANAGEMENT]) == ["key", "expiration time"]
    assert found[INFERENCE]["expiration time"] == "2026-11-23T01:31:04.500000Z"
    assert list(found[API]) == ["key"]
    assert all(re.fullmatch(r"[A-Za-z0-9]{8}", part["key"]) for part in found.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_opens_what_it_is_for_and_nothing_else(tmp_path: Path, clock: Clock) -> None:
    keys = made(tmp_path, clock)
    for kind in (MANAGEMENT, INFERENCE, API):
        given = key_of(keys.path, kind)
        assert [k for k in (MANAGEMENT, INFERENCE, API) if keys.check(k, given)] == [kind]
    assert not keys.check(MANAGEMENT, "")
    assert not keys.check(MANAGEMENT, "\udcff ü")
    assert not keys.check("token", key_of(keys.path, API))


def test_keys_expire_but_the_api_key_does_not(tmp_path: Path, clock: Clock) -> None:
    keys = made(tmp_path, clock)
    clock.now += 3599
    assert keys.check(INFERENCE, key_of(keys.path, INFERENCE))
    clock.now += 2
    assert not keys.check(INFERENCE, key_of(keys.path, INFERENCE))
    assert keys.check(API, key_of(keys.path, API))


def test_another_process_sees_a_key_that_was_renewed(tmp_path: Path, clock: Clock) -> None:
    one = made(tmp_path, clock)
    other = Keys(one.path, 60.0, clock)
    old, kept = key_of(one.path, INFERENCE), key_of(one.path, MANAGEMENT)
    assert other.check(INFERENCE, old)
    clock.now += 7200
    one.renew(INFERENCE)
    new = key_of(one.path, INFERENCE)
    assert new != old
    assert other.check(INFERENCE, new)
    assert not other.check(INFERENCE, old)
    assert key_of(one.path, MANAGEMENT) == kept
    with pytest.raises(ValueError, match="'API' is not one of"):
        one.renew(API)


def test_a_file_that_was_removed_or_broken_does_not_lock_everybody_out(tmp_path: Path, clock: Clock) -> None:
    keys = made(tmp_path, clock)
    given = key_of(keys.path, INFERENCE)
    assert keys.check(INFERENCE, given)
    keys.path.write_text("{")
    assert keys.check(INFERENCE, given)
    keys.remove()
    keys.remove()
    assert keys.check(INFERENCE, given)
    assert not Keys(keys.path, 60.0, clock).check(INFERENCE, given)


def test_a_restart_makes_new_keys_unless_they_shall_survive(tmp_path: Path, clock: Clock) -> None:
    first = made(tmp_path, clock)
    inference = key_of(first.path, INFERENCE)
    clock.now += 1800
    first.renew(MANAGEMENT)
    management, api = key_of(first.path, MANAGEMENT), key_of(first.path, API)
    clock.now += 2000  # the key for inference has expired by now
    second = Keys(first.path, 60.0, clock)
    second.make(survive=True)
    assert key_of(first.path, MANAGEMENT) == management
    assert key_of(first.path, API) == api
    assert key_of(first.path, INFERENCE) != inference
    second.make(survive=False)
    assert not {management, api} & {key_of(first.path, kind) for kind in (MANAGEMENT, API)}


def test_a_file_of_torchserves_own_is_read(tmp_path: Path) -> None:
    part = {"key": "abcdefgh", "expiration time": "2026-11-23T01:31:04.933165050Z"}  # nanoseconds
    keys = parse_keys(json.dumps({MANAGEMENT: part, INFERENCE: part, API: {"key": "x"}}).encode())
    assert keys[MANAGEMENT].expires == pytest.approx(1795397464.933165)
    assert keys[API].expires is None


def test_where_no_file_can_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"key_file\.json: the keys cannot be written: No such file"):
        Keys(tmp_path / "nowhere" / "key_file.json", 60.0).make()
