"""Keys: real files, with the modes that they need, and refusals that name the file or the setting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from headway import keys
from headway.errors import SettingsError
from headway.settings import BrokerSettings, ClientSettings, WorkerSettings

FAR = "tcp://10.0.0.1:7401"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys"


@pytest.fixture
def made(folder: Path) -> Path:
    """A folder with the broker's pair, a worker's and a caller's."""
    keys.make(folder, "broker", keys.BROKER)
    keys.make(folder, "gpu2", keys.WORKER)
    keys.make(folder, "web1", keys.CALLER)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def worker(folder: Path, **more: str) -> WorkerSettings:
    return WorkerSettings(broker=FAR, keys_dir=str(folder), **more)


# ---- making ----


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_pair_s_secret_is_its_owner_s_alone_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        pair, public = keys.make(folder, "gpu2", keys.WORKER)
    finally:
        os.umask(before)
    assert (mode(pair), mode(public), mode(folder)) == (0o600, 0o644, 0o700)
    assert "secret-key" in pair.read_text()
    assert "secret-key" not in public.read_text()
    assert keys.role_of(public) == keys.WORKER


def test_a_pair_is_never_overwritten(made: Path) -> None:
    before = (made / "gpu2.key").read_text()
    with pytest.raises(SettingsError, match="is there already"):
        keys.make(made, "gpu2", keys.WORKER)
    assert (made / "gpu2.key").read_text() == before


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "x" * 101, "a b", "ä"])
def test_a_name_is_letters_digits_and_a_few_signs(folder: Path, name: str) -> None:
    for refused in (lambda: keys.make(folder, name, keys.CALLER), lambda: keys.revoke(folder, name)):
        with pytest.raises(SettingsError, match="not a name"):
            refused()
    assert not folder.exists()


def test_the_broker_s_pair_has_the_broker_s_name_and_no_other_has(folder: Path) -> None:
    for name, role in (("broker", keys.WORKER), ("other", keys.BROKER)):
        with pytest.raises(SettingsError, match="called broker"):
            keys.make(folder, name, role)


# ---- allowing and revoking ----


def test_a_key_is_allowed_for_the_role_that_its_file_says(made: Path) -> None:
    path = keys.allow(made, made / "gpu2.pub")
    assert path == made / "workers" / "gpu2.pub"
    assert (mode(path), mode(path.parent)) == (0o644, 0o700)
    assert keys.allow(made, made / "gpu2.pub") == path, "once more is no error"
    assert keys.allow(made, made / "gpu2.pub", role=keys.CALLER, name="x") == made / "callers" / "x.pub"


def test_another_key_does_not_take_a_name_that_is_given(made: Path) -> None:
    keys.allow(made, made / "gpu2.pub")
    _, other = keys.make(made, "gpu3", keys.WORKER)
    with pytest.raises(SettingsError, match="another key is allowed as gpu2"):
        keys.allow(made, other, name="gpu2")


def test_a_file_with_a_secret_is_not_taken_for_a_public_key(made: Path) -> None:
    with pytest.raises(SettingsError, match="holds a secret key"):
        keys.allow(made, made / "gpu2.key")
    assert not (made / "workers").exists()


@pytest.mark.parametrize(
    "text",
    ["", "hello", 'curve\n public-key = "short"\n', "\xff", 'curve\n public-key = "' + "\\" * 40 + '"'],
)
def test_what_is_no_key_file_is_refused(made: Path, text: str) -> None:
    wrong = made / "wrong.pub"
    wrong.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="no key file"):
        keys.allow(made, wrong)


def test_a_role_that_no_file_says_must_be_given(made: Path) -> None:
    bare = made / "bare.pub"
    bare.write_text(f'curve\n    public-key = "{zmq.curve_keypair()[0].decode()}"\n')
    for file in (bare, made / "broker.pub"):
        with pytest.raises(SettingsError, match="say its role"):
            keys.allow(made, file)
    assert keys.allow(made, bare, role=keys.WORKER).exists()


def test_a_revoked_key_is_gone_from_both_folders_or_from_one(made: Path) -> None:
    for role in keys.FOLDERS:
        keys.allow(made, made / "gpu2.pub", role=role)
    assert keys.revoke(made, "gpu2", keys.CALLER) == [made / "callers" / "gpu2.pub"]
    assert keys.revoke(made, "gpu2") == [made / "workers" / "gpu2.pub"]
    with pytest.raises(SettingsError, match="no key is allowed as gpu2"):
        keys.revoke(made, "gpu2")
    assert (made / "gpu2.key").exists()


def test_those_who_are_allowed_are_read_again_when_the_folder_changes(made: Path) -> None:
    allowed = keys.Allowed(made / "workers")
    assert (allowed.look(), len(allowed)) == ([], 0)
    public = keys.to_broker(worker(made), FAR, keys.WORKER).public
    path = keys.allow(made, made / "gpu2.pub")
    assert allowed.name_of(public) is None, "not before it looks"
    assert allowed.look() == []
    assert allowed.name_of(public) == "gpu2"
    (made / "workers" / "bad.pub").write_text("nothing")
    (made / "workers" / ".hidden.pub").write_text("nothing")
    [problem] = allowed.look()
    assert "bad.pub" in problem
    assert allowed.look() == [], "each state is told once"
    path.unlink()
    allowed.look()
    assert allowed.name_of(public) is None


def test_the_list_shows_every_key_and_what_is_wrong_but_no_secret(made: Path) -> None:
    keys.allow(made, made / "gpu2.pub")
    (made / "web1.key").chmod(0o640)
    _, public = keys.make(made / "elsewhere", "gpu9", keys.WORKER)
    public.rename(made / "gpu9.pub")
    entries = keys.listed(made)
    assert [(e.name, e.role, e.pair, e.allowed) for e in entries] == [
        ("broker", "broker", True, False),
        ("gpu2", "worker", True, False),
        ("web1", "caller", True, False),
        ("gpu9", "worker", False, False),
        ("gpu2", "worker", False, True),
    ]
    assert [bool(e.problem) for e in entries] == [False, False, True, False, False]
    secrets = [keys.load_certificate(path)[1].decode() for path in made.glob("*.key")]
    assert not any(secret in repr(entries) for secret in secrets)


# ---- what a connection gets ----


def test_paths_need_no_keys(tmp_path: Path) -> None:
    for settings, role in ((WorkerSettings(), keys.WORKER), (ClientSettings(), keys.CALLER)):
        assert keys.to_broker(settings, "ipc:///run/x.sock", role) is None
    assert keys.of_broker(BrokerSettings(keys_dir=str(tmp_path / "none"))) is None


def test_both_ends_find_their_own_keys_and_the_broker_s(made: Path) -> None:
    far = keys.to_broker(worker(made), FAR, keys.WORKER)
    near = keys.of_broker(BrokerSettings(keys_dir=str(made), callers_tcp=FAR))
    assert far.broker == near.public
    assert near.broker == b""
    assert zmq.curve_public(far.secret) == far.public != near.public
    assert far.secret.decode() not in repr(far)


def test_the_state_directory_has_the_keys_unless_told_otherwise(made: Path) -> None:
    settings = WorkerSettings(state_dir=made.parent)
    assert keys.to_broker(settings, FAR, keys.WORKER)


def test_of_several_keys_one_must_be_named(made: Path) -> None:
    keys.make(made, "gpu3", keys.WORKER)
    with pytest.raises(SettingsError, match=r"key_name: .* gpu2, gpu3"):
        keys.to_broker(worker(made), FAR, keys.WORKER)
    gpu3 = keys.to_broker(worker(made, key_name="gpu3"), FAR, keys.WORKER)
    assert gpu3.public != keys.to_broker(worker(made, key_name="gpu2"), FAR, keys.WORKER).public
    with pytest.raises(SettingsError, match="not a name"):
        keys.to_broker(worker(made, key_name="../gpu3"), FAR, keys.WORKER)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("gpu2.key", "no key of a worker .*headway keys make"), ("broker.pub", "broker.pub.*copy it")],
)
def test_a_missing_key_is_named_with_what_to_do(made: Path, missing: str, said: str) -> None:
    (made / missing).unlink()
    with pytest.raises(SettingsError, match=f"keys_dir: .*{said}"):
        keys.to_broker(worker(made), FAR, keys.WORKER)


@pytest.mark.parametrize("address", ["callers_tcp", "workers_tcp"])
@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "0.0.0.0"])
def test_a_broker_without_keys_does_not_listen_at_tcp_without_the_word_for_it(
    folder: Path, address: str, host: str
) -> None:
    given = {address: f"tcp://{host}:7401", "keys_dir": str(folder)}
    with pytest.raises(SettingsError, match=r"keys_dir: .*tcp_security"):
        keys.of_broker(BrokerSettings(**given))
    assert keys.of_broker(BrokerSettings(**given, tcp_security="plain")) is None


def test_nor_does_anybody_connect(folder: Path) -> None:
    with pytest.raises(SettingsError, match="tcp_security"):
        keys.to_broker(worker(folder), FAR, keys.WORKER)
    assert keys.to_broker(worker(folder, tcp_security="plain"), FAR, keys.WORKER) is None


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_secret_that_others_can_read_is_refused(made: Path, bits: int) -> None:
    (made / "gpu2.key").chmod(bits)
    (made / "broker.key").chmod(bits)
    with pytest.raises(SettingsError, match=r"others can read .*gpu2.key .*chmod 600"):
        keys.to_broker(worker(made), FAR, keys.WORKER)
    with pytest.raises(SettingsError, match=r"others can read .*broker.key"):
        keys.of_broker(BrokerSettings(keys_dir=str(made), workers_tcp=FAR))


def test_a_pair_in_the_place_of_the_broker_s_public_key_is_refused(made: Path) -> None:
    (made / "broker.pub").write_text((made / "broker.key").read_text())
    with pytest.raises(SettingsError, match="holds a secret key"):
        keys.to_broker(worker(made), FAR, keys.WORKER)


def test_a_public_key_in_the_place_of_a_pair_is_refused(made: Path) -> None:
    (made / "gpu2.key").write_text((made / "gpu2.pub").read_text())
    with pytest.raises(SettingsError, match="no secret key"):
        keys.to_broker(worker(made), FAR, keys.WORKER)


def test_addresses_that_cannot_be_meant_are_refused(made: Path) -> None:
    with pytest.raises(SettingsError, match="name its host"):
        keys.to_broker(worker(made), "tcp://0.0.0.0:7402", keys.WORKER)
    with pytest.raises(SettingsError, match="a port each"):
        keys.of_broker(BrokerSettings(keys_dir=str(made), callers_tcp=FAR, workers_tcp=FAR))
    with pytest.raises(SettingsError, match="workers_tcp: the address"):
        keys.of_broker(BrokerSettings(keys_dir=str(made), workers_tcp="tcp://10.0.0.1"))
