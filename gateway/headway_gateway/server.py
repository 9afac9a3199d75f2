"""The gateway's processes: gunicorn, told everything in code.

Knows: gunicorn and uvicorn, the listening sockets, the folder where processes share their counters.
Must not know: routes, the broker.

The addresses are bound here and handed to gunicorn, which would try a busy one five times and print the
errors of each. Every process serves all of them; which app answers is for `doors` to say. gunicorn's control
socket stays off: whoever may signal the process has all it offers.
No `max_requests`: with this worker class it drops connections.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLContext
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.util import is_ipv6, parse_address
from uvicorn_worker import UvicornWorker

from headway import logs
from headway.errors import SettingsError
from headway.exits import Exit
from headway.notify import Notifier
from headway.settings import GatewaySettings
from headway_gateway.arbiter import NotifyingArbiter
from headway_gateway.connection import Connection
from headway_gateway.doors import ADDRESSES, INFERENCE, place_of
from headway_gateway.tls import Server
from headway_gateway.torchserve import listening
from headway_gateway.torchserve.connection import Connection as TorchServeConnection

_log = logs.get("headway.gateway")
GRACEFUL_TIMEOUT_S = 10  # what is in flight may end; then it is cut
SILENCE_S = 30  # a process whose event loop stands still for so long is killed and replaced
# Longer than any proxy or client keeps an idle connection (nginx: 60 s): who closes first must be the one who
# sends, or a request now and then meets a connection that is just being closed.
KEEP_ALIVE_S = 75
NOTIFY_S = 1
MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"


def serve(settings: GatewaySettings) -> int:
    """Run until told to stop; returns the exit code. Raises: SettingsError for an impossible address."""
    notifier = Notifier.from_environment()  # gunicorn would say that it is ready before any process is
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    contexts = listening.contexts_of(settings) if settings.torchserve else {}
    listeners: dict[str, socket.socket] = {}
    for setting in ADDRESSES:
        address = getattr(settings, setting)
        try:
            if address or setting == INFERENCE:
                listeners[setting] = bind(address, setting)
        except OSError as error:
            _close(listeners)
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"{setting}: cannot listen on {address}: {error.strerror}") from None
            _log.error("another program listens on the address", **{setting: address})
            return Exit.LOCKED
    share_metrics(settings, listeners[INFERENCE])
    try:
        Gateway(settings, listeners, notifier, contexts).run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.FAILED
    return Exit.OK


def _close(listeners: dict[str, socket.socket]) -> None:
    for listener in listeners.values():
        listener.close()


def bind(said: str, setting: str = INFERENCE) -> socket.socket:
    """A socket bound to HOST:PORT or unix:PATH, which the setting of that name says. Raises: OSError,
    SettingsError."""
    if said.startswith("unix:/"):
        return _bind_file(said.removeprefix("unix:"))
    try:
        address: Any = parse_address(said)
    except RuntimeError as error:
        raise SettingsError(f"{setting}: {error}") from None
    if not isinstance(address, tuple) or not 0 <= address[1] < 1 << 16:
        raise SettingsError(f"{setting}: {said!r} is not HOST:PORT")
    listener = socket.socket(socket.AF_INET6 if is_ipv6(address[0]) else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_file(path: str) -> socket.socket:
    """A socket file that nobody listens at any more is replaced. Raises: OSError."""
    listener = socket.socket(socket.AF_UNIX)
    if Path(path).is_socket() and not _is_served(path):
        Path(path).unlink(missing_ok=True)
    try:
        listener.bind(path)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def share_metrics(settings: GatewaySettings, listener: socket.socket) -> None:
    """Prepare the folder that the processes count in, and forget what an earlier run counted.

    prometheus_client reads the variable when it is imported: nothing in this process may do so before.
    """
    name = place_of(listener.getsockname()).port or "file"
    folder = Path(settings.metrics_dir) if settings.metrics_dir else settings.run_dir / f"metrics-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        if not _is_counting(old):
            old.unlink(missing_ok=True)
    os.environ[MULTIPROC_DIR] = str(folder)


def _is_counting(file: Path) -> bool:
    """Whether the process that made it lives, and has it: another door of this stack may share the folder.
    (Its number alone says nothing: another process may have that by now.)"""
    try:
        maps = Path("/proc", file.stem.rpartition("_")[2], "maps").read_text(errors="replace")
    except OSError:
        return False
    return str(file.resolve()) in maps


class Worker(UvicornWorker):
    """The worker class without what a server behind its own port does not need. It ends when gunicorn's
    arbiter is gone: an orphan would keep the address for ever."""

    CONFIG_KWARGS = {  # noqa: RUF012 (the base class has it so)
        "loop": "uvloop",
        "http": Connection,
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "timeout_notify": NOTIFY_S,
    }

    async def callback_notify(self) -> None:
        self.notify()
        if os.getppid() != self.ppid:
            _log.error("gunicorn's arbiter is gone; draining", pid=os.getpid())
            os.kill(os.getpid(), signal.SIGTERM)


class TorchServeWorker(Worker):
    """Speaks as TorchServe's server does, on some listeners through TLS."""

    CONFIG_KWARGS = Worker.CONFIG_KWARGS | {"http": TorchServeConnection, "date_header": False}

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = Server(self.config, self.app.contexts)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class Log(GunicornLogger):
    """gunicorn's log lines, and so uvicorn's, through the handler that all others go through."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers[:] = logging.getLogger().handlers


class Gateway(BaseApplication):
    """gunicorn's view of us."""

    def __init__(
        self,
        settings: GatewaySettings,
        listeners: dict[str, socket.socket],
        notifier: Notifier,
        contexts: Mapping[str, SSLContext],
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._places = {setting: place_of(at.getsockname()) for setting, at in listeners.items()}
        self.contexts = {
            listeners[door].getsockname(): context for door, context in contexts.items() if door in listeners
        }
        self._fds = [listener.detach() for listener in listeners.values()]
        super().__init__()

    def run(self) -> None:
        NotifyingArbiter(self, self._notifier, str(self._places[INFERENCE])).run()

    def load_config(self) -> None:
        for key, value in self._options().items():
            if key in self.cfg.settings:  # an older gunicorn has no control socket to turn off
                self.cfg.set(key, value)

    def load(self) -> Any:
        """The app; called in each worker process. Imported here: see `share_metrics`."""
        from headway_gateway.app import doors_of

        return doors_of(self._settings, self._places)

    def _options(self) -> dict[str, Any]:
        return {
            "bind": [f"fd://{fd}" for fd in self._fds],
            "workers": self._settings.processes,
            "worker_class": TorchServeWorker if self._settings.torchserve else Worker,
            "preload_app": False,
            "timeout": SILENCE_S,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "keepalive": KEEP_ALIVE_S,
            "worker_tmp_dir": str(self._settings.run_dir),
            # At "info" both tell every step of their lives, and a socket closed twice at each end.
            "loglevel": "warning" if self._settings.log_level == "info" else self._settings.log_level,
            "logger_class": Log,
            "accesslog": None,
            "control_socket_disable": True,
            "child_exit": _on_child_exit,
            "when_ready": self._on_ready,
            "on_exit": self._on_exit,
        }

    def _on_ready(self, arbiter: Any) -> None:
        _log.info("listening", **self._names(), processes=self._settings.processes)

    def _on_exit(self, arbiter: Any) -> None:
        _log.info("stopped", **self._names())

    def _names(self) -> dict[str, str]:
        return {setting: str(place) for setting, place in self._places.items()}


def _on_child_exit(arbiter: Any, worker: Any) -> None:
    from prometheus_client.multiprocess import mark_process_dead  # see `share_metrics`

    mark_process_dead(worker.pid)
