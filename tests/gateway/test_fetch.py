"""headway_gateway.fetch: real HTTP, real archives, and a store in which nothing half-written stays."""

from __future__ import annotations

import fcntl
import gc
import io
import os
import socket
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headway.errors import Cancelled, DeadlineExceeded, HeadwayError, InternalError, InvalidInput, TooLarge
from headway.settings import GatewaySettings
from headway.store import scan
from headway_gateway import fetch
from headway_gateway.fetch import Limits, into_store, limits_of
from headway_gateway.origins import prefix_of

TOML = b'backend = "python"\n'
CODE = b"class Model: ...\n"


def tgz(*entries: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def zipped(*entries: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return packed.getvalue()


GOOD = tgz(("model.toml", TOML), ("model.py", CODE))


class Site(ThreadingHTTPServer):
    """Serves `files`; a string redirects to it, a function does what it likes with the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.files: dict[str, Any] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Asked(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        found = self.server.files.get(self.path.partition("?")[0])
        if callable(found):
            found(self)
        elif found is None:
            self.send_error(404)
        elif isinstance(found, str):
            self.send_response(302)
            self.send_header("Location", found)
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def web() -> Iterator[Site]:
    with Site() as site:
        serving = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield site
        site.shutdown()
        serving.join()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def limits(*prefixes: str, bytes_max: int = 1 << 20, timeout_s: float = 10.0) -> Limits:
    return Limits(tuple(map(prefix_of, prefixes)), bytes_max, timeout_s)


def get(
    url: str, store: Path, allowed: Limits, wanted: tuple[str, str] = ("m", "2"), stop: Any = None
) -> str:
    return into_store(url, wanted, store, allowed, stop or threading.Event())


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("m.tar.gz", GOOD),
        ("m.tgz", tgz(("any/model.toml", TOML), ("any/model.py", CODE))),
        ("m.zip", zipped(("model.toml", TOML), ("model.py", CODE))),
        ("m.zip", zipped(("any/", b""), ("any/model.toml", TOML), ("any/model.py", CODE))),
    ],
)
def test_a_model_is_in_the_store_whole_and_nothing_else_is(web, store, file, data):
    web.files[f"/a/{file}"] = data
    assert get(f"{web.url}/a/{file}?signed=1", store, limits(f"{web.url}/a")) == "m/2"
    assert sorted(str(p.relative_to(store)) for p in store.rglob("*")) == [
        "m", "m/2", "m/2/model.py", "m/2/model.toml",
    ]  # fmt: skip
    assert [spec.key for spec in scan(store).specs] == [("m", "2")]
    assert web.asked == [f"/a/{file}?signed=1"]


def test_a_file_url_is_copied_and_not_taken_away(store, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.tgz").write_bytes(GOOD)
    assert get(f"file://{tmp_path}/in/m.tgz", store, limits(f"file://{tmp_path}/in")) == "m/2"
    assert (tmp_path / "in" / "m.tgz").exists()


def test_a_link_that_leads_out_of_the_allowed_folder_is_not_followed(store, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.tgz").write_bytes(GOOD)
    (tmp_path / "in" / "m.tgz").symlink_to(tmp_path / "secret.tgz")
    with pytest.raises(InvalidInput, match="leads out"):
        get(f"file://{tmp_path}/in/m.tgz", store, limits(f"file://{tmp_path}/in"))


def test_a_redirection_is_followed_only_where_that_is_allowed(web, store):
    web.files |= {"/a/1.tgz": "/a/2.tgz", "/a/2.tgz": GOOD, "/a/3.tgz": "/b/m.tgz", "/b/m.tgz": GOOD}
    web.files |= {"/a/4.tgz": "file:///etc/hostname", "/a/5.tgz": f"//localhost:{web.server_port}/a/2.tgz"}
    web.files |= {"/a/6.tgz": "/a/6.tgz"}
    allowed = limits(f"{web.url}/a", "file:///etc/")
    assert get(f"{web.url}/a/1.tgz", store, allowed) == "m/2"
    for number in (3, 4, 5, 6):
        with pytest.raises(InvalidInput):
            get(f"{web.url}/a/{number}.tgz", store, allowed, ("n", "1"))
    assert "/b/m.tgz" not in web.asked
    assert [p.name for p in store.iterdir()] == ["m"]


def test_the_connection_of_an_answer_that_is_not_taken_is_closed_at_once(web, store):
    web.files |= {"/a/1.tgz": "/b/m.tgz", "/a/2.tgz": "file:///etc/hostname", "/a/3.tgz": "/a/3.tgz"}
    kept = []
    for number in (1, 2, 3, 4):  # there is no 4
        with pytest.raises(InvalidInput) as caught:
            get(f"{web.url}/a/{number}.tgz", store, limits(f"{web.url}/a"))
        kept.append(caught)  # and with it whatever it knows of
    assert connections_to(web.server_port) == []


def connections_to(port: int) -> list[socket.socket]:
    """This process's own that are open."""
    found = [thing for thing in gc.get_objects() if isinstance(thing, socket.socket)]
    return [one for one in found if one.fileno() >= 0 and peer_port_of(one) == port]


def peer_port_of(one: socket.socket) -> int:
    try:
        return int(one.getpeername()[1]) if one.family == socket.AF_INET else 0
    except OSError:
        return 0


def cut_short(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(GOOD) + 10))
    request.end_headers()
    request.wfile.write(GOOD)


def without_length(size: int) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(bytes(size))

    return answer


def slowly(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(200):
            request.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        pass


FAULTS: dict[str, tuple[Any, type[HeadwayError], str]] = {
    "nothing there": (None, InvalidInput, "404"),
    "too large, as it says": (bytes(1 << 21), TooLarge, "2097152"),
    "too large, unsaid": (without_length(1 << 21), TooLarge, "register_bytes_max"),
    "cut short": (cut_short, InvalidInput, "ended after"),
    "hangs up": (lambda request: request.connection.close(), InvalidInput, "m.tgz"),
    "no archive": (b"<html>", InvalidInput, "archive"),
    "no model.toml": (tgz(("a", b"1"), ("b/model.toml", TOML)), InvalidInput, "model.toml"),
    "two models": (tgz(("a/model.toml", TOML), ("b/model.toml", TOML)), InvalidInput, "model.toml"),
    "wrong model.toml": (tgz(("model.toml", b'backedn = "x"\n')), InvalidInput, "backedn"),
    "model.toml is no TOML": (tgz(("model.toml", b"\xff")), InvalidInput, "not TOML"),
    "a file that is missing": (tgz(("model.toml", TOML + b'file = "w.pt"\n')), InvalidInput, "w.pt"),
    "a name that leads out": (tgz(("model.toml", TOML), ("../x", b"")), InvalidInput, "leads out"),
    "unpacks to too much": (tgz(("model.toml", TOML), ("w", bytes(1 << 21))), TooLarge, "unpacked"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_leaves_nothing_in_the_store(web, store, fault):
    found, error, text = FAULTS[fault]
    web.files["/m.tgz"] = found
    with pytest.raises(error, match=text):
        get(f"{web.url}/m.tgz", store, limits(web.url))
    assert list(store.iterdir()) == []
    assert not list(store.parent.glob("x"))


def test_a_slow_sender_ends_with_the_time_limit(web, store):
    web.files["/m.tgz"] = slowly
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        get(f"{web.url}/m.tgz", store, limits(web.url, timeout_s=0.2))
    assert time.monotonic() - began < 2
    assert list(store.iterdir()) == []


def test_who_left_is_not_fetched_for(web, store):
    web.files["/m.tgz"] = slowly
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        get(f"{web.url}/m.tgz", store, limits(web.url), stop=stop)
    assert list(store.iterdir()) == []


def test_a_server_that_is_not_there_is_said(store):
    with pytest.raises(InvalidInput, match="refused"):
        get("http://127.0.0.1:1/m.tgz", store, limits("http://127.0.0.1:1"))


def test_of_two_that_fetch_one_version_one_wins_and_the_other_is_told(web, store, monkeypatch):
    web.files["/m.tgz"] = GOOD
    met = threading.Barrier(2)
    publish = fetch._publish
    monkeypatch.setattr(fetch, "_publish", lambda *way: (met.wait(5), publish(*way)))
    outcomes: list[Any] = []

    def one() -> None:
        try:
            outcomes.append(get(f"{web.url}/m.tgz", store, limits(web.url)))
        except HeadwayError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [InvalidInput, "m/2"]
    assert [p.name for p in store.iterdir()] == ["m"]


def test_a_version_that_is_there_is_not_even_fetched(web, store):
    (store / "m" / "2").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="already"):
        get(f"{web.url}/m.tgz", store, limits(web.url))
    assert web.asked == []


def test_what_a_killed_process_left_is_removed_and_what_lives_is_kept(web, store):
    web.files["/m.tgz"] = GOOD
    dead, alive, fresh = (store / f".fetch-{name}" for name in ("dead", "alive", "fresh"))
    for folder in (dead, alive, fresh):
        (folder / "unpacked").mkdir(parents=True)
    for folder in (dead, alive):
        os.utime(folder, (0, 0))
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    get(f"{web.url}/m.tgz", store, limits(web.url))
    os.close(lock)
    assert {p.name for p in store.iterdir()} == {"m", ".fetch-alive", ".fetch-fresh"}


def test_a_folder_that_another_ones_sweep_looks_at_just_now_is_waited_for(store, monkeypatch):
    make = tempfile.mkdtemp
    looking: list[threading.Timer] = []

    def looked_at(**where: Any) -> str:
        folder = make(**where)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        looking.append(threading.Timer(0.05, os.close, [lock]))
        looking[0].start()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", looked_at)
    with fetch.hidden_folder(store) as folder:
        assert folder.is_dir()
    looking[0].join()
    assert list(store.iterdir()) == []


def test_a_scan_in_the_middle_sees_nothing(web, store, monkeypatch):
    web.files["/m.tgz"] = GOOD
    seen = []
    publish = fetch._publish
    monkeypatch.setattr(fetch, "_publish", lambda *way: (seen.append(scan(store)), publish(*way)))
    get(f"{web.url}/m.tgz", store, limits(web.url))
    assert (seen[0].specs, seen[0].broken) == ([], {})


def test_a_store_that_cannot_be_written_is_our_fault(web, tmp_path):
    web.files["/m.tgz"] = GOOD
    (tmp_path / "file").touch()
    with pytest.raises(InternalError, match="cannot put a model"):
        get(f"{web.url}/m.tgz", tmp_path / "file", limits(web.url))


def test_the_settings_name_prefixes_with_commas(tmp_path):
    said = GatewaySettings(run_dir=tmp_path, register_urls=" http://a/b , file:///c,", register_bytes_max=7)
    found = limits_of(said)
    assert [prefix.path for prefix in found.prefixes] == ["/b", "/c"]
    assert (found.bytes_max, found.timeout_s) == (7, 900.0)
    assert limits_of(GatewaySettings(run_dir=tmp_path)).prefixes == ()
