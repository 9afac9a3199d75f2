"""What scripts/quickstart does once there is an environment: build, start, wait, ask, stop.

Knows: the command line of `headway`, and two URLs. Must not know: anything inside Headway.

Whatever happens, what was started is stopped: `headway up` leads a process group of its own, which
Ctrl-C in the terminal does not reach; it is told to stop its processes and itself. Should it be killed,
they end with it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn
from urllib.error import URLError
from urllib.request import Request, urlopen

EXAMPLE = Path("examples/efficientnet_lite0")
STORE = Path(".quickstart/models")
LOG = Path(".quickstart/headway.log")
MODEL = "efficientnet_lite0"
PHOTOGRAPHS = (EXAMPLE / "chelsea.png", EXAMPLE / "coffee.png")
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/quickstart")
    parser.add_argument("--once", action="store_true", help="ask, stop, and exit 0 if all went well")
    once = parser.parse_args().once
    address = os.environ.get("HEADWAY_HTTP", "127.0.0.1:8080")
    management = os.environ.get("HEADWAY_MANAGEMENT", "127.0.0.1:8081")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("stopped"))

    check_free("HEADWAY_HTTP", address)
    check_free("HEADWAY_MANAGEMENT", management)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)  # the last run's
    step("building the example model")
    command(sys.executable, str(EXAMPLE / "build.py"), "--model-store", str(STORE))
    with run_folder() as run_dir, stack(address, management) as up:
        wait_until_ready(address, up)
        for photograph in PHOTOGRAPHS:
            ask_over_http(address, photograph)
            ask_directly(photograph)
        if not once:
            stay(address, management, run_dir, up)
    step("all went well" if once else "stopped")


def check_free(variable: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except ValueError:
            sys.exit(f"{variable}={address} is not HOST:PORT")
        except OSError as error:
            sys.exit(
                f"cannot listen on {address}: {error.strerror}. "
                f"Choose another: {variable}=127.0.0.1:8090 scripts/quickstart"
            )


@contextmanager
def run_folder() -> Iterator[Path]:
    """In memory where possible; its name is short, as a socket's path has at most 107 characters.

    Every `headway` that is started from here finds it in its environment.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="headway-", dir=memory, ignore_cleanup_errors=True) as folder:
        os.environ["HEADWAY_RUN_DIR"] = folder
        os.environ["HEADWAY_STATE_DIR"] = str(STORE.parent / "state")
        yield Path(folder)


@contextmanager
def stack(address: str, management: str) -> Iterator[subprocess.Popen[bytes]]:
    """Broker, one worker and gateway, for as long as the block lasts."""
    arguments = ["headway", "up", "--model-store", str(STORE), "--workers", "1"]
    arguments += ["--http", address, "--management", management, "--metrics", ""]
    step(f"{' '.join(arguments)}    (log: {LOG})")
    with LOG.open("wb") as log:
        up = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield up
    finally:
        stop(up)


def stop(up: subprocess.Popen[bytes]) -> None:
    up.terminate()
    with suppress(subprocess.TimeoutExpired):
        up.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(up.pid, signal.SIGKILL)
    up.wait()


def wait_until_ready(address: str, up: subprocess.Popen[bytes]) -> None:
    url = f"http://{address}/v2/models/{MODEL}/ready"
    give_up = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up:
        if up.poll() is not None:
            fail(f"headway up ended with exit code {up.returncode}")
        with suppress(URLError, OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    fail(f"{MODEL} was not ready after {READY_TIMEOUT_S:.0f} s ({url})")


def ask_over_http(address: str, photograph: Path) -> None:
    url = f"http://{address}/predictions/{MODEL}"
    step(f"curl --data-binary @{photograph} {url}")
    request = Request(url, photograph.read_bytes(), {"Content-Type": "application/octet-stream"})
    try:
        with urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
    except (OSError, ValueError) as error:
        said = error.read().decode(errors="replace") if hasattr(error, "read") else ""
        fail(f"{url}: {error} {said}")
    show(answer)


def show(answer: object) -> None:
    """The example answers {"top": [{"label", "probability", ...}, ...]}; anything else is shown as it is."""
    match answer:
        case {"top": [{"label": str(), "probability": float()}, *_] as top}:
            for guess in top:
                print(f"  {guess['probability']:7.2%}  {guess['label']}")
        case _:
            print(json.dumps(answer, indent=2))


def ask_directly(photograph: Path) -> None:
    arguments = ["headway", "infer", MODEL, "--image", str(photograph)]
    step(" ".join(arguments))
    command(*arguments)


def stay(address: str, management: str, run_dir: Path, up: subprocess.Popen[bytes]) -> None:
    print(f"""
Headway is running; Ctrl-C stops all of it. In another terminal:

    cd {Path.cwd()}
    source .venv/bin/activate
    export HEADWAY_RUN_DIR={run_dir}
    headway models
    headway infer {MODEL} --image {PHOTOGRAPHS[0]}
    curl --data-binary @{PHOTOGRAPHS[1]} http://{address}/predictions/{MODEL}
    headway top --management {management}
""")
    try:
        fail(f"headway up ended with exit code {up.wait()}")
    except KeyboardInterrupt:
        print(flush=True)


def command(*arguments: str) -> None:
    """Runs it to its end, its output ours."""
    if code := subprocess.run(arguments, timeout=600).returncode:
        fail(f"{' '.join(arguments)}: exit code {code}")


def step(text: str) -> None:
    print(f"\n=> {text}", flush=True)


def fail(text: str) -> NoReturn:
    lines = LOG.read_text(errors="replace").splitlines()[-30:] if LOG.exists() else []
    sys.exit("\n".join(["", *(f"  | {line}" for line in lines), f"scripts/quickstart: {text}"]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
