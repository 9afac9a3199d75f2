"""Two TorchServe archives under `headway up`, asked over HTTP."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from headway_worker.torchserve.scratch import PREFIX
from tests.system.stack import Up
from tests.worker.archives import archived, needs_archiver

pytestmark = [pytest.mark.system, needs_archiver]

HANDLER = """
    import common
    from ts.torch_handler.base_handler import BaseHandler
    from ts.utils.util import PredictionException

    class Shout(BaseHandler):
        def initialize(self, context):
            self.initialized = True
        def handle(self, data, context):
            words = [row.get("body") or row.get("words") for row in data]
            if any(not isinstance(word, str) for word in words):
                raise PredictionException("text only", 415)
            return [{"said": common.shout(word), "of": len(data)} for word in words]
"""


def add_archive(folder: Path, name: str, mark: str) -> None:
    files = {"handler.py": HANDLER, "common.py": f"def shout(word):\n    return word.upper() + '{mark}'\n"}
    made = archived(folder, "handler.py", {**files}, name=name, extra_files="common.py")
    version = folder / "models" / name / "1"
    version.mkdir(parents=True)
    made.rename(version / made.name)
    (version / "model.toml").write_text(f'backend = "torchserve"\nfile = "{made.name}"\nbatch_size_max = 4\n')


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    for name, mark in (("loud", "!"), ("louder", "!!!")):
        add_archive(tmp_path, name, mark)
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "unpacked"))
    up = Up(tmp_path, workers=1)
    yield up
    up.close()


def asked(up: Up, name: str, data: bytes, content_type: str = "text/plain") -> dict[str, object]:
    request = Request(f"http://{up.http}/predictions/{name}", data, {"Content-Type": content_type})
    with urlopen(request, timeout=20) as reply:
        assert reply.headers["Content-Type"] == "application/json"
        found: dict[str, object] = json.load(reply)
        return found


def test_archives_are_served_over_http_and_leave_nothing(up: Up, tmp_path: Path) -> None:
    up.hear("ready: http://")
    up.hear("loud 1: ready")
    up.hear("louder 1: ready")
    for _ in range(3):
        assert asked(up, "loud", b"hi") == {"said": "HI!", "of": 1}
        assert asked(up, "louder", b"hi") == {"said": "HI!!!", "of": 1}
    head = b'Content-Disposition: form-data; name="words"\r\nContent-Type: text/plain'
    form = b"--x\r\n%s\r\n\r\nyes\r\n--x--\r\n" % head
    assert asked(up, "loud", form, "multipart/form-data; boundary=x") == {"said": "YES!", "of": 1}
    with pytest.raises(HTTPError) as refused:
        asked(up, "loud", b"\x00", "application/octet-stream")
    assert "text only" in refused.value.read().decode()
    assert len(list((tmp_path / "unpacked").glob(f"{PREFIX}*"))) == 2
    assert up.end(signal.SIGINT) == 0
    assert list((tmp_path / "unpacked").glob(f"{PREFIX}*")) == []
