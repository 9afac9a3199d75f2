"""Settings: who wins over whom, and refusals that name the key and the place."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from headway import settings
from headway.errors import SettingsError
from headway.settings import (
    SECTIONS,
    BrokerSettings,
    ClientSettings,
    GatewaySettings,
    Shared,
    WorkerSettings,
    default_run_dir,
    read,
)


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
    """No variable and no file but those of the test."""
    for variable in [v for v in os.environ if v.startswith("HEADWAY_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(settings, "FILES", (tmp_path / "headway.toml",))


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="headway.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def refusal(cls=BrokerSettings, **arguments):
    with pytest.raises(SettingsError) as caught:
        read(cls, **arguments)
    return str(caught.value)


# ---- precedence


def test_without_anything_every_setting_has_its_default():
    for cls in (Shared, *SECTIONS):
        assert read(cls) == cls()


def test_command_line_wins_over_environment_over_file_over_default(monkeypatch, write):
    found = [read(BrokerSettings).heartbeat_ms]
    write("[broker]\nheartbeat_ms = 1")
    found.append(read(BrokerSettings).heartbeat_ms)
    monkeypatch.setenv("HEADWAY_BROKER_HEARTBEAT_MS", "2")
    found.append(read(BrokerSettings).heartbeat_ms)
    found.append(read(BrokerSettings, {"heartbeat_ms": 3}).heartbeat_ms)
    assert found == [500, 1, 2, 3]


def test_what_the_command_line_does_not_say_is_left_alone(monkeypatch):
    monkeypatch.setenv("HEADWAY_BROKER_HEARTBEAT_MS", "2")
    assert read(BrokerSettings, {"heartbeat_ms": None, "run_dir": None}).heartbeat_ms == 2


def test_a_shared_setting_may_be_said_for_one_section_and_that_wins(monkeypatch, write):
    write('log_level = "error"\n[broker]\nlog_level = "debug"')
    assert [read(c).log_level for c in (Shared, BrokerSettings, WorkerSettings)] == [
        "error",
        "debug",
        "error",
    ]
    monkeypatch.setenv("HEADWAY_LOG_LEVEL", "warning")
    assert {read(c).log_level for c in (Shared, BrokerSettings, WorkerSettings)} == {"warning"}
    monkeypatch.setenv("HEADWAY_WORKER_LOG_LEVEL", "info")
    assert read(WorkerSettings).log_level == "info"


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_variables_decides_nothing(monkeypatch, order):
    for variable, value in [("HEADWAY_RUN_DIR", "/all"), ("HEADWAY_BROKER_RUN_DIR", "/own")][::order]:
        monkeypatch.setenv(variable, value)
    assert read(BrokerSettings).run_dir == Path("/own")


def test_a_section_does_not_read_those_of_others(monkeypatch, write):
    write("[broker]\nheartbeat_ms = 1\n[worker]\nthreads = 3")
    monkeypatch.setenv("HEADWAY_BROKER_SILENCE_S", "9")
    assert read(WorkerSettings) == WorkerSettings(threads=3)


# ---- the file


def test_the_file_may_be_named(monkeypatch, write):
    path = write("[broker]\nheartbeat_ms = 1", "other.toml")
    assert read(BrokerSettings, file=path).heartbeat_ms == 1
    monkeypatch.setenv("HEADWAY_CONFIG", str(path))
    assert read(BrokerSettings).heartbeat_ms == 1
    assert settings.find_file() == path


def test_without_a_file_there_is_none():
    assert settings.find_file() is None


def test_a_file_that_is_named_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWAY_CONFIG", str(tmp_path / "gone.toml"))
    assert refusal() == f"{tmp_path}/gone.toml: No such file or directory"
    assert "Is a directory" in refusal(file=tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("heartbeat_ms = 1", "heartbeat_ms is not a setting or section"),
        ("[broker]\nheartbeet_ms = 1", "[broker] heartbeet_ms is not a setting"),
        ("[worker]\nheartbeat_ms = 1", "[worker] heartbeat_ms is not a setting"),
        ("[borker]", "borker is not a setting or section"),
        ("broker = 1", "broker is not a setting or section"),
        ("[[broker]]", "broker is not a setting or section"),
        ("[run_dir]", "run_dir must be of type Path"),
        ("run_dir = 3", "run_dir must be of type Path"),
        ("log_level = 3", "log_level must be of type str"),
        ("[broker]\nheartbeat_ms = true", "heartbeat_ms must be of type int"),
        ("[broker]\nheartbeat_ms = 1.5", "heartbeat_ms must be of type int"),
        ("[broker]\nheartbeat_ms = -1", "heartbeat_ms must be at least 0"),
        ("[broker]\nsilence_s = false", "silence_s must be of type float"),
        ("[broker]\nsilence_s = nan", "silence_s must be at least 0, and finite"),
        ("[broker]\nsilence_s = inf", "silence_s must be at least 0, and finite"),
        ("[broker]\nsilence_s = " + "1" * 400, "silence_s must be of type float"),
        ("[broker]\nsilence_s = [1]", "silence_s must be of type float"),
        ("[broker", "not TOML"),
        (b"# \xff", "not TOML"),
        ("[broker]\nheartbeat_ms = " + "1" * 5000, "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_and_key(write, text, reason):
    path = write(text)
    message = refusal()
    assert message.startswith(f"{path}: ")
    assert reason in message


def test_typos_in_the_section_of_another_process_are_refused_too(write):
    write("[worker]\ntreads = 1")
    assert "[worker] treads" in refusal(BrokerSettings)


# ---- the environment


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("HEADWAY_BROKER_HEARTBEET_MS", "1", "is not a setting"),
        ("HEADWAY_BROKER_", "1", "is not a setting"),
        ("HEADWAY_BROKER_HEARTBEAT_MS", "1.5", "must be of type int, not '1.5'"),
        ("HEADWAY_BROKER_HEARTBEAT_MS", "", "must be of type int, not ''"),
        ("HEADWAY_BROKER_HEARTBEAT_MS", "-1", "must be at least 0"),
        ("HEADWAY_BROKER_SILENCE_S", "soon", "must be of type float, not 'soon'"),
        ("HEADWAY_BROKER_SILENCE_S", "nan", "must be at least 0, and finite"),
        ("HEADWAY_BROKER_SILENCE_S", "1e999", "must be at least 0, and finite"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    assert refusal().startswith(f"{variable} {reason}")


@pytest.mark.parametrize("variable", ["HEADWAY_HTTP", "HEADWAY", "BROKER_HEARTBEAT_MS", "RUN_DIR"])
def test_variables_of_others_are_left_alone(monkeypatch, variable):
    monkeypatch.setenv(variable, "anything")
    assert read(BrokerSettings) == BrokerSettings()


# ---- the command line


@pytest.mark.parametrize("value", [1.5, "x", True, [1]])
def test_a_wrong_option_is_refused_as_it_is_written(value):
    assert refusal(given={"heartbeat_ms": value}).startswith("--heartbeat-ms must be of type int")


def test_an_option_may_be_text_or_of_its_type():
    found = read(BrokerSettings, {"silence_s": "2.5", "run_dir": "/a", "load_timeout_s": 3})
    assert (found.silence_s, found.run_dir, found.load_timeout_s) == (2.5, Path("/a"), 3.0)
    assert read(BrokerSettings, {"run_dir": Path("/a")}).run_dir == Path("/a")


def test_an_unknown_log_format_is_refused():
    assert refusal(given={"log_format": "xml"}) == "log_format: 'xml' is not text or json"


# ---- what the settings are


def test_the_run_directory_is_that_of_the_session_or_ours_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_run_dir() == Path("/run/user/7/headway")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(settings, "SHM", tmp_path)
    assert default_run_dir() == tmp_path / f"headway-{os.getuid()}"
    monkeypatch.setattr(settings, "SHM", tmp_path / "none")
    assert default_run_dir() == Path(f"/tmp/headway-{os.getuid()}")


def test_addresses_are_sockets_in_the_run_directory():
    shared = Shared(run_dir=Path("/r"))
    assert (shared.callers_address, shared.workers_address) == (
        "ipc:///r/broker.sock",
        "ipc:///r/workers.sock",
    )


@pytest.mark.parametrize("cls", [Shared, *SECTIONS])
def test_every_setting_has_a_line_of_help(cls):
    assert all(f.metadata["help"] for f in fields(cls))


def test_every_setting_is_of_a_type_that_text_can_say(monkeypatch):
    for cls in SECTIONS:
        for f in fields(cls):
            default = getattr(cls(), f.name)
            monkeypatch.setenv(f"HEADWAY_{cls.section.upper()}_{f.name.upper()}", str(default))
        assert read(cls) == cls()
    assert GatewaySettings.section == "gateway"


@pytest.mark.parametrize("cls", [ClientSettings, GatewaySettings])
def test_a_setting_with_few_values_takes_no_other(cls):
    assert read(cls, {"shm_full": "refuse"}).shm_full == "refuse"
    assert "shm_full: 'wait' is not inline or refuse" in refusal(cls, given={"shm_full": "wait"})


# ---- limits


def test_a_share_over_100_is_refused_by_name_wherever_it_was_said(monkeypatch, write):
    assert refusal(WorkerSettings, given={"cuda_mps_share": 101}) == "cuda_mps_share: 101 is over 100"
    write("[worker]\ncuda_mps_share = 250")
    assert refusal(WorkerSettings) == "cuda_mps_share: 250 is over 100"
    monkeypatch.setenv("HEADWAY_WORKER_CUDA_MPS_SHARE", "100")
    assert read(WorkerSettings).cuda_mps_share == 100
    monkeypatch.setenv("HEADWAY_WORKER_CUDA_MPS_SHARE", "-1")
    assert "HEADWAY_WORKER_CUDA_MPS_SHARE must be at least 0" in refusal(WorkerSettings)


def test_cuda_mps_is_auto_or_require():
    assert refusal(WorkerSettings, given={"cuda_mps": "yes"}) == "cuda_mps: 'yes' is not auto or require"


# ---- several hosts ----


@pytest.mark.parametrize("cls", [ClientSettings, GatewaySettings, WorkerSettings])
def test_a_broker_that_is_named_takes_the_place_of_the_one_in_the_run_directory(cls, monkeypatch):
    monkeypatch.setenv(f"HEADWAY_{cls.section.upper()}_BROKER", "tcp://10.0.0.1:7401")
    settings = read(cls)
    assert settings.callers_address == settings.workers_address == "tcp://10.0.0.1:7401"
    assert Shared().callers_address.startswith("ipc://")


def test_the_broker_of_a_worker_is_in_its_own_section(tmp_path):
    file = tmp_path / "headway.toml"
    file.write_text('[worker]\nbroker = "tcp://a:1"\n[broker]\nworkers_tcp = "tcp://b:1"\n')
    assert read(WorkerSettings, file=file).workers_address == "tcp://a:1"
    assert read(BrokerSettings, file=file).workers_tcp == "tcp://b:1"
    assert read(BrokerSettings, file=file).workers_address.startswith("ipc://")


def test_keys_are_in_the_state_directory_unless_told_otherwise():
    assert Shared(state_dir=Path("/s")).keys_path == Path("/s/keys")
    assert Shared(keys_dir="/k").keys_path == Path("/k")


def test_tcp_security_takes_two_words():
    assert read(BrokerSettings).tcp_security == "curve"
    assert "tcp_security: 'off' is not curve or plain" in refusal(
        BrokerSettings, given={"tcp_security": "off"}
    )


# ---- the management token


def test_the_token_is_that_of_the_file_named_else_of_the_environment_else_of_the_state_directory(
    tmp_path, monkeypatch
):
    shared = Shared(state_dir=tmp_path)
    with pytest.raises(SettingsError, match="HEADWAY_TOKEN"):
        settings.find_token(shared)
    (tmp_path / "token").write_text("a\n")
    (tmp_path / "mine").write_text("b")
    assert settings.find_token(shared) == "a"
    monkeypatch.setenv("HEADWAY_TOKEN", "c")
    assert settings.find_token(shared) == "c"
    assert settings.find_token(shared, tmp_path / "mine") == "b"
