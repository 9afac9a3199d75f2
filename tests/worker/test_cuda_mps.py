"""The control of CUDA MPS, against a stand-in daemon: real processes, real pipes, no GPU."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway_worker import cuda_mps
from headway_worker.cuda_mps import (
    Control,
    ControlError,
    Ended,
    Faulty,
    NoAnswer,
    NoDaemon,
    NoProgram,
    Refused,
    Unparsable,
    abandon,
    end_client,
    is_client,
    pid_for,
    wait_active,
    wait_gone,
)
from tests.cuda_mps.daemon import PROGRAM, Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "pipe")
    made.start()
    yield made
    made.stop()


# ---- questions


def test_it_lists_servers_and_clients_and_says_how_a_server_is(daemon: Daemon) -> None:
    control = daemon.control
    assert control.server_list() == []
    daemon.add(os.getpid())
    [server] = control.server_list()
    assert control.client_list(server) == [os.getpid()]
    assert control.server_status(server) == "ACTIVE"
    assert control.server_of(os.getpid()) == server
    assert control.server_of(1) is None
    daemon.tell(state="FAULT")
    assert control.server_status(server) == "FAULT"


def test_limits_are_set_and_read(daemon: Daemon) -> None:
    daemon.add(os.getpid())
    [server] = daemon.control.server_list()
    daemon.control.set_default_active_thread_percentage(40)
    assert daemon.control.get_default_active_thread_percentage() == "40.0"
    daemon.control.set_active_thread_percentage(server, 30)
    daemon.control.set_default_device_pinned_mem_limit("0", "2G")
    daemon.control.set_device_pinned_mem_limit(server, "0", "1G")
    assert (daemon.pipe_dir / "standin/commands").read_text().splitlines()[-4:] == [
        "get_default_active_thread_percentage",
        f"set_active_thread_percentage {server} 30",
        "set_default_device_pinned_mem_limit 0 2G",
        f"set_device_pinned_mem_limit {server} 0 1G",
    ]


def test_quit_ends_the_daemon(daemon: Daemon) -> None:
    daemon.control.quit(force_after_s=1)
    assert daemon.daemon.wait(10) == 0
    wait_gone(daemon.control, 5.0)


# ---- what goes wrong


def test_no_daemon_is_said_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=f"the CUDA MPS daemon of {tmp_path} is not there"):
        Control(tmp_path, PROGRAM).server_list()


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoProgram, match="nvidia-nothing: No such file"):
        Control(tmp_path, "nvidia-nothing").server_list()


def test_a_daemon_that_does_not_answer_is_given_up_in_time_and_leaves_no_process(daemon: Daemon) -> None:
    daemon.tell(on_get_server_list="hang")
    start = time.monotonic()
    with pytest.raises(NoAnswer, match=r"did not answer 'get_server_list' within 0\.5 s"):
        Control(daemon.pipe_dir, PROGRAM, timeout_s=0.5).server_list()
    assert time.monotonic() - start < 5.0
    assert children() == {daemon.daemon.pid}


@pytest.mark.parametrize(("command", "error"), [("garbage", Unparsable), ("fail", Refused)])
def test_an_answer_that_is_none_is_quoted(daemon: Daemon, command: str, error: type[Exception]) -> None:
    daemon.add(os.getpid())
    [server] = daemon.control.server_list()
    words = "what is this" if command == "garbage" else "Failed to run"
    daemon.tell(on_get_server_list=command, on_get_server_status=command)
    with pytest.raises(error, match=words):
        daemon.control.server_list()
    with pytest.raises(error, match=words):
        daemon.control.server_status(server)


@pytest.mark.parametrize(
    "answer", ["echo 'Client 7 not found'", "echo 807", "echo -1", "echo Failed", "exit 1", "echo no; exit 9"]
)
def test_a_client_counts_as_ended_only_if_nothing_says_otherwise(tmp_path: Path, answer: str) -> None:
    program = tmp_path / "control"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\n{answer}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(Refused):
        Control(tmp_path, program).terminate_client(1, 7)
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 0\n")
    Control(tmp_path, program).terminate_client(1, 7)


# ---- the end of a client


def test_a_stuck_client_is_taken_off_the_gpu_and_then_killed(daemon: Daemon) -> None:
    stuck, neighbour = daemon.stuck_client(), daemon.stuck_client()
    stuck.terminate()
    server = daemon.control.server_of(stuck.pid)
    assert end_client(daemon.control, stuck.pid, 10.0) == Ended(stuck.pid, server)
    assert stuck.wait(5) == -signal.SIGKILL
    assert server and daemon.control.client_list(server) == [neighbour.pid]
    assert neighbour.poll() is None
    assert daemon.commands().count("terminate_client") == 1


@pytest.mark.parametrize(
    ("how", "reason", "timeout_s"), [("fail", "Failed to run", 20.0), ("hang", "did not answer", 3.0)]
)
def test_a_client_that_cannot_be_taken_off_lives_on_and_the_gpu_is_faulty(
    daemon: Daemon, how: str, reason: str, timeout_s: float
) -> None:
    stuck, neighbour = daemon.stuck_client(), daemon.stuck_client()
    daemon.tell(on_terminate_client=how)
    with pytest.raises(Faulty, match=f"process {stuck.pid} cannot be ended without danger.*{reason}"):
        end_client(daemon.control, stuck.pid, timeout_s)
    assert stuck.poll() is None
    abandon(daemon.control, [stuck.pid, neighbour.pid], 10.0)
    assert [p.wait(5) for p in (stuck, neighbour)] == [-signal.SIGKILL] * 2
    assert daemon.daemon.wait(5) == 0


def test_without_a_daemon_to_ask_a_process_is_not_killed(tmp_path: Path) -> None:
    lonely = Daemon(tmp_path)
    try:
        stuck = lonely.stuck()
        with pytest.raises(Faulty, match="is not there"):
            end_client(lonely.control, stuck.pid, 1.0)
        assert stuck.poll() is None
        abandon(lonely.control, [stuck.pid], 1.0)
        assert stuck.wait(5) == -signal.SIGKILL
    finally:
        lonely.stop()


def test_a_process_that_is_no_client_is_just_killed(daemon: Daemon) -> None:
    stuck = daemon.stuck()
    assert end_client(daemon.control, stuck.pid, 5.0) == Ended(stuck.pid, None)
    assert stuck.wait(5) == -signal.SIGKILL
    assert "terminate_client" not in daemon.commands()


def test_a_process_that_is_gone_has_ended(daemon: Daemon) -> None:
    gone = daemon.stuck()
    gone.kill()
    gone.wait()
    assert end_client(daemon.control, gone.pid, 5.0) == Ended(gone.pid, None)


def test_a_daemon_that_will_not_quit_is_told_of(daemon: Daemon) -> None:
    daemon.tell(on_quit="fail")
    with pytest.raises(ControlError, match="Failed to run quit"):
        abandon(daemon.control, [], 1.0)
    with pytest.raises(ControlError, match="does not quit"):
        wait_gone(daemon.control, 0.3)


# ---- waiting


def test_after_a_fault_new_clients_are_welcome_when_the_old_ones_have_gone(daemon: Daemon) -> None:
    client = daemon.stuck_client()
    wait_active(daemon.control, 5.0)
    daemon.tell(state="FAULT")
    with pytest.raises(ControlError, match=r"are not ready: \{\d+: 'FAULT'\}"):
        wait_active(daemon.control, 0.3)
    client.kill()
    client.wait()
    wait_active(daemon.control, 5.0)


def test_a_daemon_without_servers_is_ready_and_none_is_not(daemon: Daemon, tmp_path: Path) -> None:
    wait_active(daemon.control, 0.1)
    with pytest.raises(NoDaemon):
        wait_active(Control(tmp_path, PROGRAM), 0.3)


def test_whether_a_process_is_a_client(daemon: Daemon) -> None:
    assert not is_client(daemon.control, os.getpid(), timeout_s=0.1)
    daemon.add(os.getpid())
    assert is_client(daemon.control, os.getpid(), timeout_s=0.1)


# ---- numbers of other namespaces


@pytest.mark.parametrize(
    ("ours", "daemons", "called"),
    [
        ([500], [40], 500),  # nobody in a container
        ([500, 7], [40], 500),  # the worker in a container, the daemon on the host
        ([500, 7], [40, 3], 7),  # both in one
        ([500, 7, 2], [40, 3], 7),
        ([500], [40, 3], 500),  # the daemon in a container, the worker not: as good as any
        ([500, 7], [], 500),  # a daemon that we cannot see
    ],
)
def test_the_daemon_calls_a_process_by_the_number_of_its_own_namespace(
    tmp_path: Path, ours: list[int], daemons: list[int], called: int
) -> None:
    proc, pipe_dir = tmp_path / "proc", tmp_path / "pipe"
    pipe_dir.mkdir()
    add_process(proc, ours, "python")
    add_process(proc, [90, 3, 40], "nvidia-cuda-mpx")
    if daemons:
        add_process(proc, daemons, "nvidia-cuda-mps")
    (pipe_dir / cuda_mps.PID_FILE).write_text(f"{(daemons or [40])[-1]}\n")
    assert pid_for(Control(pipe_dir, PROGRAM), ours[0], proc) == called


def test_without_the_daemons_number_a_process_keeps_ours(tmp_path: Path) -> None:
    add_process(tmp_path, [500, 7], "python")
    assert pid_for(Control(tmp_path, PROGRAM), 500, tmp_path) == 500
    assert pid_for(Control(tmp_path, PROGRAM), 501, tmp_path) == 501


def add_process(proc: Path, ids: list[int], comm: str) -> None:
    folder = proc / str(ids[0])
    folder.mkdir(parents=True)
    numbers = "\t".join(map(str, ids))
    (folder / "status").write_text(f"Name:\t{comm}\nPid:\t{ids[0]}\nNSpid:\t{numbers}\nNSsid:\t1\n")
    (folder / "comm").write_text(f"{comm}\n")


def children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(word) for word in text.split()}
