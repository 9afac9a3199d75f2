"""TorchServe's command line: what it takes, says and ends with, before anything is started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headway import locks
from headway.cli._torchserve.arguments import Arguments, parse
from headway.cli._torchserve.devices import count_gpus, devices_for
from headway.cli._torchserve.folder import fresh, shared_for
from headway.cli._torchserve.herald import answers, listens
from headway.cli._torchserve.logfiles import MODEL, SERVER, LogFiles, of_agent
from headway.cli._torchserve.pidfile import PidFile
from headway.cli._torchserve.processes import Stack, doors_of, threads_for
from headway.cli._torchserve.serving import interruptible, planned
from headway.cli.main import main
from headway.cli.torchserve import found_properties
from headway.errors import SettingsError
from headway.settings import Shared, default_run_dir
from headway.torchserve.addresses import Address
from headway.torchserve.properties import Properties
from headway.torchserve.reading import Given, read_properties
from headway.torchserve.registration import Registration, write_version


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, with a store and a temporary folder."""
    for name in ("store", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name in ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION", "TEMP"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def torchserve(*words: str) -> Result:
    return CliRunner().invoke(main, ["torchserve", *words])


def test_every_option_of_torchserves_is_taken() -> None:
    words = "--start --ts-config c --model-store s --workflow-store w --models a=b.mar c.mar --log-config l"
    words += " --cpp-log-config cl --foreground --ncs --dt --enable-model-api --ppath p"
    assert parse(words.split()) == Arguments(
        start=True,
        ts_config="c",
        model_store="s",
        workflow_store="w",
        models=("a=b.mar", "c.mar"),
        log_config="l",
        cpp_log_config="cl",
        foreground=True,
        no_config_snapshots=True,
        plugins_path="p",
        disable_token_auth=True,
        enable_model_api=True,
    )
    assert parse(["--no-config-snapshots", "--disable-token-auth", "--model-st", "x"]).model_store == "x"


def test_the_version_is_the_one_that_clients_know() -> None:
    said = torchserve("--version")
    assert (said.exit_code, said.output.partition(" (")[0]) == (0, "TorchServe Version is 0.12.0")
    assert torchserve("-v").output == said.output


@pytest.mark.parametrize("words", [["--start", "--stop"], ["--nonsense"], ["more"]])
def test_words_that_are_none_end_with_the_code_of_argparse(words: list[str]) -> None:
    assert torchserve(*words).exit_code == 2


def test_help_names_the_options() -> None:
    said = torchserve("--help")
    assert said.exit_code == 0
    assert "--no-config-snapshots" in said.output
    assert "--tell" not in said.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--start", "Missing mandatory parameter --model-store"),
        ("--model-store nowhere", "--model-store directory not found: "),
        ("--model-store store --workflow-store nowhere", "--workflow-store directory not found: "),
        ("--model-store store --ts-config nope.cfg", "--ts-config file not found: nope.cfg"),
        ("--model-store store --log-config nope.xml", "--log-config file not found: nope.xml"),
        ("--model-store store --cpp-log-config no.cfg", "--cpp-log-config file not found: no.cfg"),
        ("--model-store store --plugins-path p", "--plugins-path: plugins of TorchServe are Java"),
    ],
)
def test_what_is_missing_is_said_as_torchserve_says_it(here: Path, words: str, said: str) -> None:
    result = torchserve(*words.split())
    assert result.exit_code == 1
    assert result.output.startswith(said)


def test_a_temporary_folder_that_is_none_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMP", "/no/such")
    assert torchserve("--start").output.startswith("Invalid temp directory: /no/such, please check TEMP")


def test_stopping_what_does_not_run_is_no_error(here: Path) -> None:
    result = torchserve("--stop")
    assert (result.exit_code, result.output) == (0, "TorchServe is not currently running.\n")
    (here / "tmp" / ".model_server.pid").write_text("1")
    result = torchserve("--stop")
    assert result.output == "Removing orphan pid file.\nTorchServe is not currently running.\n"
    assert list((here / "tmp").iterdir()) == []


def test_one_that_runs_is_not_started_twice(here: Path) -> None:
    lock = locks.take(here / "tmp" / ".model_server.pid")
    os.write(lock, b"4711")
    result = torchserve("--start", "--model-store", "store")
    os.close(lock)
    assert result.exit_code == 1
    assert result.output.startswith("TorchServe is already running, please use torchserve --stop")


def test_a_wrong_property_ends_the_start_with_its_key(here: Path) -> None:
    (here / "c.cfg").write_text("model_store=store\njob_queue_size=x\n")
    result = torchserve("--ts-config", "c.cfg")
    assert result.exit_code == 78
    assert "c.cfg: job_queue_size: 'x' is not a whole number" in result.output


@pytest.mark.parametrize("content", [b"", b"job_queue_size=2", bytes(100)])
def test_a_last_snapshot_that_is_cut_off_is_named_and_nothing_starts_without_its_models(
    here: Path, content: bytes
) -> None:
    (here / "logs" / "config").mkdir(parents=True)
    snapshot = here / "logs" / "config" / "20261123003110600-shutdown.cfg"
    snapshot.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{snapshot.name}: it is no whole snapshot"):
        found_properties(Arguments(model_store="store"))
    assert found_properties(Arguments(model_store="store", no_config_snapshots=True)).properties.model_store


def test_the_configuration_is_the_named_file_else_the_last_snapshot_else_the_one_here(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**said: object) -> int:
        return found_properties(Arguments(**said)).properties.job_queue_size  # type: ignore[arg-type]

    assert found() == 100
    (here / "config.properties").write_text("job_queue_size=1")
    assert found() == 1
    (here / "logs" / "config").mkdir(parents=True)
    snapshot = here / "logs" / "config" / "20261123003110600-shutdown.cfg"
    snapshot.write_text('job_queue_size=2\nmodel_snapshot={"models": {}}')
    assert found() == 2
    assert found(no_config_snapshots=True) == 1
    (here / "named.cfg").write_text("job_queue_size=3")
    assert found(ts_config="named.cfg") == 3
    (here / "variable.cfg").write_text("job_queue_size=4")
    monkeypatch.setenv("TS_CONFIG_FILE", str(here / "variable.cfg"))
    assert found(ts_config="named.cfg") == 4


def test_a_process_is_ended_and_waited_for(here: Path) -> None:
    code = f"""
import signal, time
from pathlib import Path
from headway.cli._torchserve.pidfile import PidFile
file = PidFile(Path({str(here)!r}))
file.take()
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), file.remove(), exit(0)))
print("up", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"up\n"
    file = PidFile(here)
    assert file.running() == process.pid
    assert not file.is_orphan
    assert not file.end(process.pid, wait_s=0.0)
    assert file.end(process.pid)
    assert not file.path.exists()
    process.kill()
    process.wait()
    process.stdout.close()


def test_lines_go_to_the_file_of_who_said_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with LogFiles(tmp_path / "logs", echo=True) as logs:
        os.write(logs.server, b"from the broker\n")
        os.write(logs.agent, b"12:00:00.123 INFO headway.agent worker name=w1\nprinted\n\xff\nno end")
        logs.say("own")
    server = (tmp_path / "logs" / SERVER).read_text().splitlines()
    assert sorted(server) == [
        "12:00:00.123 INFO headway.agent worker name=w1",
        "from the broker",
        "own",
    ]
    assert (tmp_path / "logs" / MODEL).read_text() == "printed\n�\nno end\n"
    assert len(capfd.readouterr().out.splitlines()) == 6


def test_an_agents_own_lines_are_known_in_both_formats() -> None:
    assert of_agent('{"time": 1.5, "level": "info", "logger": "headway.agent", "event": "x"}') == SERVER
    assert of_agent('{"time": 1.5, "level": "info", "logger": "headway.worker", "event": "x"}') == MODEL
    assert of_agent("I say headway.agent ") == MODEL


def test_where_no_log_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="LOG_LOCATION: "):
        LogFiles(tmp_path / "file", echo=False)


def test_gpus_are_those_that_programs_see(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    smi.chmod(0o755)
    assert count_gpus({}, str(smi)) == 2
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "1"}, str(smi)) == 1
    assert count_gpus({"CUDA_VISIBLE_DEVICES": ""}, str(smi)) == 0
    assert count_gpus({}, str(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    ("said", "there", "devices"),
    [(-1, 2, "cuda:0,cuda:1"), (1, 2, "cuda:0"), (4, 2, "cuda:0,cuda:1"), (0, 2, "cpu"), (-1, 0, "cpu")],
)
def test_the_property_bounds_the_gpus(said: int, there: int, devices: str) -> None:
    assert devices_for(said, there) == devices


def test_cores_are_shared_out_among_the_workers_of_the_start() -> None:
    assert [threads_for(8, workers) for workers in (0, 1, 3, 9)] == [8, 8, 2, 1]


def test_equal_addresses_share_a_listener() -> None:
    one, two = "http://h:1", "http://h:2"
    doors = doors_of(Properties(inference_address=one, management_address=one, metrics_address=one))
    assert (doors.inference, doors.management, doors.metrics) == (Address("h", 1), None, None)
    doors = doors_of(Properties(inference_address=one, management_address=two, metrics_address=two))
    assert (doors.management, doors.metrics) == (Address("h", 2), None)
    assert doors_of(Properties(enable_metrics_api=False)).metrics is None


def test_each_process_is_told_where_and_what(tmp_path: Path) -> None:
    shared = shared_for(Shared(run_dir=tmp_path / "run"), 8080)
    properties = Properties(max_request_size=7, headway_copies_per_worker=3)
    stack = Stack(shared, properties, tmp_path / "store", "cuda:0,cuda:1", 2, 100)
    logs = LogFiles(tmp_path / "logs", echo=False)
    with logs:
        (broker,), (agent,), (gateway, *_) = stack.ranks(logs)
    assert (broker.output, agent.output, gateway.output) == (logs.server, logs.agent, logs.server)
    assert f"--model-store={tmp_path}/store" in broker.arguments
    said = {word for word in agent.arguments if word.startswith("--")}
    assert {"--places=100", "--workers-max=200", "--workers-wanted=0", "--copies-max=3"} <= said
    assert {"--threads=2", "--devices=cuda:0,cuda:1"} <= said
    assert f"--torchserve={tmp_path}/run/torchserve.json" in gateway.arguments
    assert {"--http=127.0.0.1:8080", "--management=127.0.0.1:8081", "--body-bytes-max=7"} <= {
        *gateway.arguments
    }
    for command in (broker, agent, gateway):
        assert f"--state-dir={tmp_path}/run/state" in command.arguments


def test_the_run_directory_is_the_servers_own_unless_one_is_named(tmp_path: Path) -> None:
    own = shared_for(Shared(), 8085).run_dir
    assert own == default_run_dir().with_name(f"{default_run_dir().name}-torchserve-8085")
    assert shared_for(Shared(run_dir=tmp_path), 8085).run_dir == tmp_path


def test_the_run_directory_is_made_anew_and_gone_afterwards(tmp_path: Path) -> None:
    shared = shared_for(Shared(run_dir=tmp_path / "run"), 8080)
    with fresh(shared) as store:
        (store / "left").touch()
        assert shared.state_dir.is_dir()
    assert not shared.run_dir.exists()

    (shared.run_dir / "store" / "old").mkdir(parents=True)  # of a server that was killed
    (shared.run_dir / "mine").touch()
    with fresh(shared) as store:
        assert list(store.iterdir()) == []
    assert [path.name for path in shared.run_dir.iterdir()] == ["mine"]


def test_the_run_directory_of_a_server_that_was_killed_is_gone_after_the_next(tmp_path: Path) -> None:
    shared = shared_for(Shared(run_dir=tmp_path / "run"), 8080)
    killed = fresh(shared)
    killed.__enter__()
    (shared.run_dir / "broker.lock").touch()
    with fresh(shared):
        pass
    assert not shared.run_dir.exists()


def test_what_was_installed_for_the_models_of_a_server_that_was_killed_goes_too(tmp_path: Path) -> None:
    shared = shared_for(Shared(run_dir=tmp_path / "run"), 8080)
    killed = fresh(shared)
    packages = tmp_path / "headway-packages-x"
    packages.mkdir()
    one = Registration("m", "1.0", "m.mar", str(tmp_path / "m.mar"), packages=str(packages))
    write_version(killed.__enter__(), one, Properties())
    with fresh(shared):
        assert not packages.exists()


def test_a_run_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    shared = shared_for(Shared(run_dir=tmp_path / "run"), 8080)
    shared.run_dir.mkdir()
    shared.run_dir.chmod(0o777)
    with pytest.raises(SettingsError, match="not a folder that only you can write to"), fresh(shared):
        pass
    shared.run_dir.chmod(0o700)
    lock = locks.take(shared.run_dir / "broker.lock")
    with pytest.raises(SettingsError, match="a broker runs in"), fresh(shared):
        pass
    os.close(lock)


def test_a_start_waits_for_what_a_killed_server_has_left(here: Path) -> None:
    shared = Shared(run_dir=here / "run")
    shared.run_dir.mkdir()
    lock = locks.take(shared.run_dir / "agent.lock")
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    line = {"inference_address": address, "model_store": "store", "number_of_gpu": "0"}
    found = read_properties(Given(folder=here, line=line))
    with pytest.raises(SettingsError, match="inference_address: cannot listen"):
        planned(found, shared, {})
    threading.Timer(0.15, os.close, [lock]).start()
    threading.Timer(0.3, listener.close).start()
    plan = planned(found, shared, {}, patience_s=10)
    assert f"http://{plan.doors.inference}" == address


def test_a_start_that_is_told_to_end_while_it_fetches_or_installs_tidies_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_answers_in_http_is_a_server_and_who_does_not_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = Address("0.0.0.0", silent.getsockname()[1])
        assert listens(port)

        def say() -> None:
            for reply in (b"HTTP/1.1 400 \r\n\r\n", b"220 mail\r\n"):
                connection = silent.accept()[0]
                with connection:
                    connection.recv(100)
                    connection.sendall(reply)

        connection = silent.accept()[0]
        connection.close()
        thread = threading.Thread(target=say)
        thread.start()
        assert [answers(port), answers(port)] == [True, False]
        thread.join()
    assert not listens(port)
    assert not answers(Address(path="/no/such/socket"))
