"""headway_gateway.torchserve.archives: which archives are found, and which are not fetched."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from email.message import Message
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from headway_gateway.torchserve.archives import Archives, Found, Limits
from headway_gateway.torchserve.refusal import Refusal
from headway_gateway.torchserve.s3 import VARIABLES

NO = threading.Event()
ANY = Limits()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    (store / "folder" / "MAR-INF").mkdir(parents=True)
    (store / "nested" / "inner").mkdir(parents=True)
    (store / "m.mar").write_bytes(b"archive")
    (store / ".hidden").write_bytes(b"")
    (tmp_path / "out.mar").write_bytes(b"outside")
    return store


class Site(http.server.SimpleHTTPRequestHandler):
    heard: ClassVar[Message] = Message()  # the last request's headers

    def do_GET(self) -> None:
        Site.heard = self.headers
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/secret")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Not in a test's output."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "new.mar").write_bytes(b"fetched")
    (folder / "m.mar").write_bytes(b"another")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def find(store: Path | str, url: str, allowed: str = "", limits: Limits = ANY) -> Found:
    return Archives(str(store), allowed, limits).find(url, NO)


def refused(store: Path | str, url: str, allowed: str = "", limits: Limits = ANY) -> tuple[int, str, str]:
    with pytest.raises(Refusal) as caught:
        find(store, url, allowed, limits)
    return caught.value.status, caught.value.type, caught.value.message


def test_a_name_is_a_file_or_folder_of_the_store(store: Path) -> None:
    assert find(store, "m.mar") == Found(store / "m.mar")
    assert find(store, "folder") == Found(store / "folder")
    assert find(store, str(store / "m.mar")) == Found(store / "m.mar")


@pytest.mark.parametrize("url", ["/elsewhere/m.mar", "sub/m.mar", "ftp://host/m.mar"])
def test_of_another_path_only_its_end_counts(store: Path, url: str) -> None:
    assert find(store, url) == Found(store / "m.mar")


def test_a_folder_with_nothing_but_a_folder_in_it_stands_for_that(store: Path) -> None:
    assert find(store, "nested").path == store / "nested" / "inner"


@pytest.mark.parametrize("url", ["x.mar", "ftp://host/x.mar", ".hidden", "/etc/passwd", ".", "/", "a\0b"])
def test_what_is_not_in_the_store_is_not_found(store: Path, url: str) -> None:
    assert refused(store, url, "file://.*") == (404, "ModelNotFoundException", f"Model not found at: {url}")


@pytest.mark.parametrize(
    "url", ["../out.mar", "file:///a/../b.mar", "http://h/%2e%2e/b.mar", "a..b", "%252e%252e/x"]
)
def test_relative_paths_are_not_found_whatever_is_allowed(store: Path, url: str) -> None:
    text = f"Relative path is not allowed in url: {url}"
    assert refused(store, url, ".*") == (404, "ModelNotFoundException", text)


def test_without_a_url_or_a_store_there_is_nothing(store: Path) -> None:
    assert refused(store, "")[2] == "empty url"
    assert refused("", "m.mar")[2] == "Model store has not been configured."


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://host/m.mar", ""),
        ("HTTPS://host/m.mar", "http://host/.*"),
        ("file:///etc/passwd", "http(s)?://.*"),
        ("http://host.evil/x.mar", "http://host/.*"),
        ("http://evil/?http://host/x.mar", "http://host/.*"),
    ],
)
def test_nothing_is_fetched_that_is_not_allowed(store: Path, url: str, allowed: str) -> None:
    text = f"Given URL {url} does not match any allowed URL(s)"
    assert refused(store, url, allowed) == (404, "ModelNotFoundException", text)


def test_what_the_store_has_is_not_fetched_again_where_that_is_said(store: Path, site: str) -> None:
    archives = Archives(str(store), ".*", reuse=True)
    assert archives.find(f"{site}/m.mar", NO) == Found(store / "m.mar")
    assert (store / "m.mar").read_bytes() == b"archive"
    assert archives.find(f"{site}/new.mar", NO) == Found(store / "new.mar", downloaded=True)
    assert refused(store, f"{site}/m.mar", ".*")[2] == "Model file already exists m.mar"


def test_what_is_allowed_lands_in_the_store(store: Path, site: str) -> None:
    found = find(store, f"{site}/new.mar?a=1", "ftp://x, HTTP://127.*")
    assert found == Found(store / "new.mar", downloaded=True)
    assert found.path.read_bytes() == b"fetched"
    assert not list(store.glob(".fetch*"))
    found.forget()
    assert not found.path.exists()


def test_a_file_is_copied_into_the_store(store: Path) -> None:
    found = find(store, f"file://{store.parent}/out.mar", "file://.*")
    assert found.path.read_bytes() == b"outside"
    assert not found.path.is_symlink()


def test_an_archive_in_the_store_is_not_replaced(store: Path, site: str) -> None:
    text = "Model file already exists m.mar"
    assert refused(store, f"{site}/m.mar", "http://.*") == (500, "InternalServerException", text)
    assert (store / "m.mar").read_bytes() == b"archive"


def test_a_local_archive_is_not_forgotten(store: Path) -> None:
    find(store, "m.mar").forget()
    assert (store / "m.mar").exists()


def test_what_cannot_be_fetched_leaves_nothing(store: Path, site: str) -> None:
    before = sorted(store.iterdir())
    for url in (f"{site}/none.mar", "http://127.0.0.1:1/x.mar", f"file://{store.parent}/none.mar"):
        text = f"Failed to download archive from: {url}"
        assert refused(store, url, ".*") == (400, "DownloadArchiveException", text)
    assert sorted(store.iterdir()) == before


def test_an_archive_that_is_too_large_leaves_nothing(store: Path, site: str) -> None:
    before = sorted(store.iterdir())
    assert refused(store, f"{site}/new.mar", ".*", Limits(bytes_max=3))[1] == "DownloadArchiveException"
    assert sorted(store.iterdir()) == before


def test_a_redirection_to_what_is_not_allowed_is_not_followed(
    store: Path, site: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(store, f"{site}/away/x.mar", f"{site}/.*")[1] == "DownloadArchiveException"
    told = [record for record in caplog.records if record.getMessage() == "archive is not fetched"]
    reasons = [record.facts["reason"] for record in told]
    assert len(reasons) == 1
    assert "http://localhost:1/secret does not match any allowed URL(s)" in reasons[0]


def test_s3_urls_are_not_found_as_in_torchserve(store: Path) -> None:
    status, kind, message = refused(store, "s3://bucket/m.mar", ".*")
    assert (status, kind) == (404, "ModelNotFoundException")
    assert "https://" in message


def test_with_s3_sse_kms_the_request_is_signed_with_the_environments_keys(
    store: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in zip(VARIABLES, ("AKID", "SECRET", "eu-west-1", ""), strict=True):
        monkeypatch.setenv(name, said)
    found = Archives(str(store), ".*").find(f"{site}/new.mar", NO, s3_sse_kms=True)
    assert found == Found(store / "new.mar", downloaded=True)
    assert Site.heard["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert Site.heard["X-Amz-Content-Sha256"] and Site.heard["X-Amz-Date"]
    assert Archives(str(store), ".*").find("m.mar", NO, s3_sse_kms=True) == Found(store / "m.mar")


@pytest.mark.parametrize(
    ("path", "id", "reason"), [("away/x.mar", "AKID", "not redirected"), ("x.mar", "", "AWS_")]
)
def test_a_signed_request_goes_to_its_own_host_and_never_without_keys(
    path: str,
    id: str,
    reason: str,
    store: Path,
    site: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, said in zip(VARIABLES, (id, "SECRET", "eu-west-1", ""), strict=True):
        monkeypatch.setenv(name, said)
    with pytest.raises(Refusal, match="Failed to download archive"):
        Archives(str(store), ".*").find(f"{site}/{path}", NO, s3_sse_kms=True)
    assert reason in caplog.records[0].facts["reason"]


def test_a_pattern_that_is_none_is_named(store: Path) -> None:
    assert "allowed_urls: '('" in refused(store, "http://h/x.mar", "(")[2]


def test_a_name_that_no_file_can_have_is_not_found(store: Path) -> None:
    url = "a" * 5000
    assert refused(store, url) == (404, "ModelNotFoundException", f"Model not found at: {url}")


def test_pipes_and_devices_are_not_read(store: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "p.mar"
    os.mkfifo(pipe)
    for source in (pipe, Path("/dev/zero")):
        assert refused(store, f"file://{source}", "file://.*")[:2] == (400, "DownloadArchiveException")
    assert not (store / "p.mar").exists()
