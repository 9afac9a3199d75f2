"""Talks to a CUDA MPS control daemon: asks it, limits it, and ends a stuck client without harm to others.

Knows: `nvidia-cuda-mps-control` and its commands (the second version of its protocol, which the third keeps),
processes. Must not know: torch, what workers do, who starts daemons.

One daemon serves one GPU, and has a folder of its own, the *pipe directory*; whoever names that folder speaks
to that daemon. It starts a *server* when the first CUDA process, a *client*, asks for one, and the server
runs as that client's user.

Why there is `end_client`: to kill a client while its work is on the GPU is undefined, and may hang the server
and every other client. So the server is told first to take the client's work off the GPU
(`terminate_client`), and the process is killed when that has succeeded. When it has not, nothing on that GPU
can be relied upon: `Faulty` says so, and whoever owns the GPU's workers ends them all, has the daemon quit,
and starts anew (`abandon`).

The daemon's process ids are those of its own PID namespace. The kernel lists a process's ids, outermost
namespace first, as `NSpid` in `/proc/PID/status`; one that we can see from outside is translated by its place
in that list. From the inside of a container there is no way to learn the outer ids.

Over 300 lines, because what is said here of one daemon (questions, dangers, numbers) is read together.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "nvidia-cuda-mps-control"
DEFAULT_PIPE_DIR = Path("/tmp/nvidia-mps")  # CUDA's own default
PID_FILE = "nvidia-cuda-mps-control.pid"
SOCKET_PATH_MAX = 107 - len("/control_privileged")  # what the kernel takes for a socket's path
ACTIVE, INITIALIZING, FAULT = "ACTIVE", "INITIALIZING", "FAULT"
POLL_S = 0.2
_REFUSALS = ("fail", "error", "not found", "invalid", "unknown", "cannot", "denied", "no such")
_PROC = Path("/proc")


class ControlError(Exception):
    """The daemon, or the way to it, did not do what it was asked for."""


class NoProgram(ControlError):
    """`nvidia-cuda-mps-control` is not installed here."""


class NoDaemon(ControlError):
    """No daemon serves the pipe directory; one may be started later."""


class NoAnswer(ControlError):
    """It took longer than allowed. What was asked for may have happened all the same."""


class Refused(ControlError):
    """The daemon says that it cannot do this."""


class Unparsable(ControlError):
    """The answer is in words that are not known here."""


class Faulty(ControlError):
    """Nothing on this GPU can be relied upon: end all its workers, then see `abandon`."""


class Control:
    """The daemon of one pipe directory. Every question starts the control program and waits for it,
    `timeout_s` at most. Raises: ControlError."""

    def __init__(
        self, pipe_dir: str | Path, executable: str | Path = PROGRAM, timeout_s: float = 10.0
    ) -> None:
        self.pipe_dir = Path(pipe_dir)
        self._executable = str(executable)
        self._timeout_s = timeout_s

    def server_list(self) -> list[int]:
        """The process ids of its servers; none before the first client has come."""
        return self._pids("get_server_list")

    def server_status(self, server: int) -> str:
        """ACTIVE, INITIALIZING or FAULT."""
        answer = self._ask(f"get_server_status {server}")
        if answer.upper() not in (ACTIVE, INITIALIZING, FAULT):
            raise Unparsable(f"{self._where}: get_server_status {server} was answered by {answer!r:.200}")
        return answer.upper()

    def client_list(self, server: int) -> list[int]:
        """The process ids of the server's clients."""
        return self._pids(f"get_client_list {server}")

    def server_of(self, client: int) -> int | None:
        """The server whose client that is, by the daemon's own number for it."""
        return next((server for server in self.server_list() if client in self.client_list(server)), None)

    def terminate_client(self, server: int, client: int, timeout_s: float | None = None) -> None:
        """Take a client's work off the GPU; its process may be killed when this returns."""
        command = f"terminate_client {server} {client}"
        answer = self._ask(command, timeout_s)
        if answer.lstrip("-").isdecimal() and int(answer) != 0:
            raise Refused(f"{self._where}: {command} was answered by {answer}")

    def set_default_active_thread_percentage(self, percent: int) -> None:
        """For servers that start later."""
        self._ask(f"set_default_active_thread_percentage {percent}")

    def set_active_thread_percentage(self, server: int, percent: int) -> None:
        """For later clients of this server."""
        self._ask(f"set_active_thread_percentage {server} {percent}")

    def set_default_device_pinned_mem_limit(self, device: str, limit: str) -> None:
        """`limit` as in "2G", for servers that start later."""
        self._ask(f"set_default_device_pinned_mem_limit {device} {limit}")

    def set_device_pinned_mem_limit(self, server: int, device: str, limit: str) -> None:
        """For later clients of this server."""
        self._ask(f"set_device_pinned_mem_limit {server} {device} {limit}")

    def get_default_active_thread_percentage(self) -> str:
        return self._ask("get_default_active_thread_percentage")

    def quit(self, force_after_s: int | None = None) -> None:
        """End the daemon and its servers: when their clients are gone, or by force after so long."""
        told_s = 0 if force_after_s is None else force_after_s
        command = "quit" if force_after_s is None else f"quit -t {force_after_s}"
        self._ask(command, self._timeout_s + told_s)

    def daemon_pid(self) -> int | None:
        """The daemon's process id, as it knows it itself."""
        try:
            return int((self.pipe_dir / PID_FILE).read_text())
        except (OSError, ValueError):
            return None

    @property
    def _where(self) -> str:
        return f"the CUDA MPS daemon of {self.pipe_dir}"

    def _pids(self, command: str) -> list[int]:
        answer = self._ask(command)
        try:
            return [int(line) for line in answer.split()]
        except ValueError:
            raise Unparsable(f"{self._where}: {command} was answered by {answer!r:.200}") from None

    def _ask(self, command: str, timeout_s: float | None = None) -> str:
        """One command; what was answered, without the white space around it."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe_dir)}
        try:
            process = subprocess.Popen(
                [self._executable],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,  # Ctrl-C at a terminal is for us
            )
        except OSError as error:
            raise NoProgram(f"{self._executable}: {error.strerror}") from None
        try:
            answer, _ = process.communicate(f"{command}\n", timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise NoAnswer(f"{self._where} did not answer {command!r} within {timeout_s:g} s") from None
        return self._checked(command, process.returncode, answer.strip())

    def _checked(self, command: str, code: int, answer: str) -> str:
        words = answer.lower()
        if "cannot find mps control daemon" in words:
            raise NoDaemon(f"{self._where} is not there")
        if code != 0 or any(word in words for word in _REFUSALS):
            raise Refused(f"{self._where}: {command}: {answer[:500] or f'exit code {code}'}")
        return answer


@dataclass(frozen=True)
class Ended:
    """A process that is gone. `server`: whose client it was, None if it was nobody's."""

    pid: int
    server: int | None


def end_client(control: Control, pid: int, timeout_s: float) -> Ended:
    """End a process that may be a client, and may be stuck, without harm to the other clients.

    `pid` is ours, not the daemon's. Not for a process that ends by itself when told to: ask it first.
    Raises: Faulty, with the process left as it is (or unkillable); the GPU's others are then in danger.
    """
    give_up = time.monotonic() + timeout_s
    try:
        handle = os.pidfd_open(pid)  # so that another process with its number is never killed
    except ProcessLookupError:
        return Ended(pid, None)
    try:
        server = detach(control, pid, timeout_s)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not _wait_for_end(handle, max(give_up - time.monotonic(), POLL_S)):
            raise Faulty(f"process {pid} does not end even by SIGKILL: the driver holds it")
        return Ended(pid, server)
    finally:
        os.close(handle)


def detach(control: Control, pid: int, timeout_s: float) -> int | None:
    """Take the process's work off the GPU, after which it may end in any way; the server whose client it was.
    Raises: Faulty."""
    give_up = time.monotonic() + timeout_s
    client = pid_for(control, pid)
    try:
        server = control.server_of(client)
        if server is not None:
            control.terminate_client(server, client, max(give_up - time.monotonic(), POLL_S))
        return server
    except ControlError as error:
        raise Faulty(f"process {pid} cannot be ended without danger to the GPU's others: {error}") from error


def abandon(control: Control, pids: Iterable[int], timeout_s: float) -> None:
    """After `Faulty`: kill all these clients, which may be stuck, and have the daemon quit.

    Raises: ControlError if the daemon does not go. Whoever started it must end it then.
    """
    give_up = time.monotonic() + timeout_s
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(NoDaemon):
        control.quit(force_after_s=max(int(timeout_s / 2), 1))
    wait_gone(control, max(give_up - time.monotonic(), POLL_S))


def wait_gone(control: Control, timeout_s: float) -> None:
    """Wait until the daemon that was told to quit is gone. Raises: ControlError if it stays."""
    give_up = time.monotonic() + timeout_s
    with suppress(NoDaemon):
        while True:
            control.server_list()
            if time.monotonic() >= give_up:
                raise ControlError(f"the CUDA MPS daemon of {control.pipe_dir} does not quit")
            time.sleep(POLL_S)


def wait_active(control: Control, timeout_s: float) -> None:
    """Wait until new clients are welcome: every server is ACTIVE, or there is none yet.

    Raises: NoDaemon, NoAnswer or ControlError, with the last state, if that takes longer than `timeout_s`.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            states = {server: control.server_status(server) for server in control.server_list()}
            problem = ControlError(f"servers of {control.pipe_dir} are not ready: {states}")
            if all(state == ACTIVE for state in states.values()):
                return
        except (NoDaemon, Refused) as error:  # it starts just now; a server went between two questions
            problem = error
        if time.monotonic() >= give_up:
            raise problem
        time.sleep(POLL_S)


def is_client(control: Control, pid: int, timeout_s: float = 2.0) -> bool:
    """Whether the daemon knows this process, in which CUDA has started, as a client. Raises: ControlError."""
    give_up = time.monotonic() + timeout_s
    while True:
        if control.server_of(pid_for(control, pid)) is not None:
            return True
        if time.monotonic() >= give_up:
            return False
        time.sleep(POLL_S)


def pid_for(control: Control, pid: int, proc: Path = _PROC) -> int:
    """What the daemon calls our process `pid`."""
    ids = _ids(pid, proc)
    inner = control.daemon_pid()
    if len(ids) < 2 or inner is None:
        return ids[0] if ids else pid
    return next((ids[depth - 1] for depth in _depths(inner, proc) if depth <= len(ids)), ids[0])


def _depths(inner: int, proc: Path) -> Iterable[int]:
    """How many namespaces deep the daemons are that call themselves `inner`; we see all that are not further
    out than we are."""
    for folder in proc.iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and (folder / "comm").read_text().startswith(PROGRAM[:15]):
                ids = _ids(int(folder.name), proc)
                if ids and ids[-1] == inner:
                    yield len(ids)


def _ids(pid: int, proc: Path) -> list[int]:
    """The process's ids, outermost namespace first."""
    with suppress(OSError):
        for line in (proc / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def _wait_for_end(handle: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5.0)
