"""The door of CUDA MPS for operators: `scripts/cuda-mps`, or `python -m headway_worker.cuda_mps_door`.

Knows: click, where a GPU's daemon keeps its files, NVIDIA's programs. Must not know: torch, workers.

Exit codes: 0 done, or all is well; 1 the daemon refused; 71 the GPU is faulty; 75 no daemon is there, or it
does not answer; 78 it cannot be as it was said.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from headway.cli.options import config_option, end, setting_option, settings_errors
from headway.exits import Exit
from headway.settings import Shared, read
from headway_worker import cuda_mps, nvidia_smi
from headway_worker.cuda_mps import Control
from headway_worker.place import own_pipe_dir

START_S = 15.0
_CODES = {
    cuda_mps.Faulty: Exit.DEVICE_FAULT,
    cuda_mps.NoDaemon: Exit.TEMPORARY,
    cuda_mps.NoAnswer: Exit.TEMPORARY,
}
_CODES[cuda_mps.NoProgram] = Exit.CONFIG


class Gpu:
    """One GPU's daemon: its folders, and how it is spoken to."""

    def __init__(self, uuid: str, shared: Shared) -> None:
        if not nvidia_smi.is_uuid(uuid):
            end(Exit.CONFIG, f"{uuid!r} is not the UUID of a GPU or MIG slice (nvidia-smi -L lists them)")
        self.uuid = nvidia_smi.full_uuid(uuid)
        self.pipe_dir = own_pipe_dir(shared.run_dir, self.uuid)
        self.log_dir = shared.state_dir / self.pipe_dir.name
        self.control = Control(self.pipe_dir)

    def environment(self) -> dict[str, str]:
        """What the daemon is started with."""
        return {
            "CUDA_VISIBLE_DEVICES": self.uuid,
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe_dir),
            "CUDA_MPS_LOG_DIRECTORY": str(self.log_dir),
        }


@click.group(
    epilog="GPU is a UUID as `nvidia-smi -L` prints it, or its beginning. docs/cuda-mps.md says more."
)
@setting_option(Shared, "run_dir")
@setting_option(Shared, "state_dir", help="folder under which the daemons write their logs")
@config_option
@click.pass_context
def main(context: click.Context, config: Path | None, **shared: object) -> None:
    """CUDA MPS: one control daemon for each GPU, started, watched and stopped.

    Exit codes: 0 done, or all is well; 1 refused; 71 the GPU is faulty; 75 no daemon, or no answer; 78 wrong
    settings.
    """
    with settings_errors():
        context.obj = read(Shared, shared, config)


@main.command()
@click.argument("gpu")
@click.option("--foreground", is_flag=True, help="stay: become the daemon, as under systemd")
@click.option(
    "--exclusive", is_flag=True, help="let CUDA start on this GPU through the daemon only (needs root)"
)
@click.option("--dry-run", is_flag=True, help="print what would be done")
@click.pass_obj
def start(shared: Shared, gpu: str, foreground: bool, exclusive: bool, dry_run: bool) -> None:
    """Start the daemon of a GPU.

    With --exclusive the GPU is put into compute mode EXCLUSIVE_PROCESS, in which a process that misses the
    daemon cannot start CUDA there. Without, it runs beside the others with the whole GPU, and only Headway's
    own workers notice. `stop --default-mode` takes it back.
    """
    it = Gpu(gpu, shared)
    if len(str(it.pipe_dir)) > cuda_mps.SOCKET_PATH_MAX:
        end(Exit.CONFIG, f"run_dir: {it.pipe_dir} has over {cuda_mps.SOCKET_PATH_MAX} characters")
    if not dry_run and _is_there(it.control):
        click.echo(f"the daemon of {it.uuid} is there already")
        return
    command = [cuda_mps.PROGRAM, "-f" if foreground else "-d"]
    with errors():
        if exclusive:
            _run(["nvidia-smi", "-i", it.uuid, "-c", "EXCLUSIVE_PROCESS"], {}, dry_run)
        _make_folders(it, dry_run)
        if foreground and not dry_run:
            os.execvpe(command[0], command, {**os.environ, **it.environment()})
        _run(command, it.environment(), dry_run)
        if not dry_run:
            cuda_mps.wait_active(it.control, START_S)
            click.echo(f"the daemon of {it.uuid} is ready: {it.pipe_dir}")


@main.command()
@click.argument("gpu")
@click.option(
    "--force-after-s", type=click.IntRange(1), default=None, help="then end servers that have clients"
)
@click.option(
    "--default-mode", is_flag=True, help="afterwards let CUDA start without the daemon (needs root)"
)
@click.option("--dry-run", is_flag=True, help="print what would be done")
@click.pass_obj
def stop(shared: Shared, gpu: str, force_after_s: int | None, default_mode: bool, dry_run: bool) -> None:
    """Have the daemon of a GPU quit. Stop its workers first: it waits for its clients."""
    it = Gpu(gpu, shared)
    if dry_run:
        force = "" if force_after_s is None else f" -t {force_after_s}"
        click.echo(f"echo quit{force} | CUDA_MPS_PIPE_DIRECTORY={it.pipe_dir} {cuda_mps.PROGRAM}")
    with errors():
        if not dry_run:
            it.control.quit(force_after_s)
            cuda_mps.wait_gone(it.control, (force_after_s or 0) + START_S)
            shutil.rmtree(it.pipe_dir, ignore_errors=True)
        if default_mode:
            _run(["nvidia-smi", "-i", it.uuid, "-c", "DEFAULT"], {}, dry_run)


@main.command()
@click.argument("gpu", required=False)
@click.pass_obj
def status(shared: Shared, gpu: str | None) -> None:
    """One line for each server of a GPU's daemon, or of all that have a folder in the run directory."""
    found = [gpu] if gpu else _started(shared)
    worst = Exit.OK
    for uuid in found:
        worst = max(worst, _status(Gpu(uuid, shared)), key=[Exit.OK, Exit.TEMPORARY, Exit.DEVICE_FAULT].index)
    sys.exit(worst)


@main.command()
@click.argument("gpu")
@click.pass_obj
def inspect(shared: Shared, gpu: str) -> None:
    """All that a daemon says: its servers, their clients, its limits."""
    it = Gpu(gpu, shared)
    with errors():
        click.echo(f"gpu       {it.uuid}\npipes     {it.pipe_dir}\nlogs      {it.log_dir}")
        click.echo(f"percent   {it.control.get_default_active_thread_percentage()} for new servers")
        for server in it.control.server_list():
            click.echo(f"server    {server} {it.control.server_status(server)}")
            for client in it.control.client_list(server):
                click.echo(f"  client  {client} {_command_of(client)}")


@main.command()
@click.argument("gpu")
@click.argument("pid", type=click.IntRange(2))
@click.option("--timeout-s", type=float, default=30.0, show_default=True)
@click.option("--dry-run", is_flag=True, help="print what would be done")
@click.pass_obj
def kill_client(shared: Shared, gpu: str, pid: int, timeout_s: float, dry_run: bool) -> None:
    """End a stuck client of a GPU without harm to the others: its work is taken off the GPU, then it is
    killed.

    When that fails (exit code 71) it is left alone: stop all workers of the GPU, `stop --force-after-s 5`,
    and start all again.
    """
    it = Gpu(gpu, shared)
    if dry_run:
        click.echo(f"terminate_client SERVER {pid}, of {it.pipe_dir}; SIGKILL to {pid}: {_command_of(pid)}")
        return
    with errors():
        ended = cuda_mps.end_client(it.control, pid, timeout_s)
        whose = "no client" if ended.server is None else f"a client of server {ended.server}"
        click.echo(f"process {pid} has ended; it was {whose}")


@contextmanager
def errors() -> Iterator[None]:
    """Makes a ControlError the end, with its exit code."""
    try:
        yield
    except cuda_mps.ControlError as error:
        end(_CODES.get(type(error), Exit.FAILED), str(error))


def _status(it: Gpu) -> Exit:
    try:
        servers = {server: it.control.server_status(server) for server in it.control.server_list()}
        for server, state in servers.items():
            clients = it.control.client_list(server)
            click.echo(f"{it.uuid} server {server} {state} clients {len(clients)}")
        if not servers:
            click.echo(f"{it.uuid} no server yet")
        return Exit.DEVICE_FAULT if cuda_mps.FAULT in servers.values() else Exit.OK
    except cuda_mps.ControlError as error:
        click.echo(f"{it.uuid} {error}")
        return Exit.TEMPORARY


def _started(shared: Shared) -> list[str]:
    folders = sorted(shared.run_dir.glob("cuda-mps-*"))
    return [folder.name.removeprefix("cuda-mps-").replace("_", "/") for folder in folders]


def _is_there(control: Control) -> bool:
    try:
        control.server_list()
    except cuda_mps.NoDaemon:
        return False
    except cuda_mps.ControlError as error:
        end(_CODES.get(type(error), Exit.FAILED), str(error))
    return True


def _make_folders(it: Gpu, dry_run: bool) -> None:
    for folder in (it.pipe_dir, it.log_dir):
        if dry_run:
            click.echo(f"mkdir -p -m 0750 {folder}")
        else:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)


def _run(command: list[str], environment: dict[str, str], dry_run: bool) -> None:
    """Raises: ControlError with what the command said."""
    if dry_run:
        click.echo(" ".join([*(f"{k}={v}" for k, v in environment.items()), shlex.join(command)]))
        return
    try:
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=START_S
        )
    except OSError as error:
        raise cuda_mps.NoProgram(f"{command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise cuda_mps.NoAnswer(f"{shlex.join(command)} took longer than {START_S:g} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise cuda_mps.ControlError(f"{shlex.join(command)}: {said or f'exit code {done.returncode}'}")


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(not to be seen from here)"


if __name__ == "__main__":
    main(prog_name="cuda-mps")
