"""headway.shm: what owners and workers may do with a segment, and what they are refused."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from headway.errors import InvalidInput
from headway.shm import HEADER_BYTES, Mapped, Segment, folder_of, sweep

SIZE = 1 << 18
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "segments"


@pytest.fixture
def segment(folder):
    segment = Segment(folder, SIZE)
    yield segment
    segment.close()


@pytest.fixture
def mapped(folder):
    mapped = Mapped(folder)
    yield mapped
    mapped.close()


def lend(segment, data=b"abcd" * 100):
    """A slot with data in it, and the reference that a request makes of it."""
    slot = segment.take(len(data))
    segment.view(slot)[HEADER_BYTES:] = data
    return slot, [segment.name, slot.offset, slot.generation, HEADER_BYTES, len(data)]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def child(code: str, *args: object, shell: str = "") -> subprocess.Popen[str]:
    """A process that runs the code; its stdin and stdout are pipes."""
    command = [sys.executable, "-c", code, *map(str, args)]
    if shell:
        command = ["unshare", "-m", "sh", "-c", f'{shell} && exec "$0" "$@"', *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "common")}
    return subprocess.Popen(
        command, env=environment, stdin=-1, stdout=-1, stderr=subprocess.STDOUT, text=True
    )


HOLD = """
import sys
from pathlib import Path
from headway.shm import Segment
segment = Segment(Path(sys.argv[1]), 4096)
print(segment.name, flush=True)
sys.stdin.read()
"""


def test_a_worker_reads_what_the_owner_wrote(segment, mapped):
    _, ref = lend(segment, b"tensors")
    view = mapped.request(ref)
    assert view == b"tensors" and view.readonly


def test_the_owner_reads_what_a_worker_replied(segment, mapped):
    slot = segment.take(10)
    ref = [segment.name, slot.offset, slot.generation, 10]
    mapped.write_reply(ref, lambda room: room.__setitem__(slice(0, 5), b"reply"))
    assert segment.view(slot)[HEADER_BYTES : HEADER_BYTES + 5] == b"reply"
    assert mapped.reply_length(ref) == 10


def test_a_segment_is_mapped_once_and_let_go_when_its_file_is_gone(segment, mapped):
    view = mapped.request(lend(segment, b"first")[1])
    mapped.request(lend(segment)[1])
    assert len(mapped) == 1
    mapped.tidy()
    assert len(mapped) == 1
    segment.close()
    mapped.tidy()
    assert len(mapped) == 0
    assert view == b"first", "views stay valid"


def test_a_stale_generation_is_refused(segment, mapped):
    slot, ref = lend(segment)
    segment.free(slot)
    with pytest.raises(InvalidInput, match="not this request's any more"):
        mapped.request(ref)
    again, _ = lend(segment)
    assert again.offset == slot.offset
    with pytest.raises(InvalidInput, match="not this request's any more"):
        mapped.request(ref)
    with pytest.raises(InvalidInput, match="not this request's any more"):
        mapped.write_reply([*ref[:3], 4], lambda room: pytest.fail("it must not write"))
    assert mapped.refused == 3


def test_generation_zero_is_nobodys(segment, mapped):
    slot, ref = lend(segment)
    segment.free(slot)
    with pytest.raises(InvalidInput):
        mapped.request([ref[0], ref[1], 0, *ref[3:]])


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, SIZE), (1, SIZE - 8), (1, 1 << 62), (1, -1), (3, 0), (3, 63), (3, SIZE), (4, SIZE), (4, 1 << 62),
     (1, True), (2, "1"), (4, 1.0), (3, None)],
)  # fmt: skip
def test_what_is_outside_the_segment_or_no_number_is_refused(segment, mapped, place, value):
    _, ref = lend(segment)
    ref[place] = value
    with pytest.raises(InvalidInput, match="shared memory"):
        mapped.request(ref)


@pytest.mark.parametrize("ref", [None, "x", [], ["a"], {}, [1, 2, 3, 4, 5], [b"x", 1, 1, 64, 1]])
def test_what_is_no_reference_at_all_is_refused(mapped, ref):
    with pytest.raises(InvalidInput, match="shared memory"):
        mapped.request(ref)
    with pytest.raises(InvalidInput, match="shared memory"):
        mapped.reply_length(ref)


@pytest.mark.parametrize(
    "name", ["../1-0123456789abcdef.seg", "/etc/passwd", "1-0123456789abcdef.seg\n", "", ".", "..",
             "1-0123456789ABCDEF.seg", "1-0123456789abcdef.seg/..", "x-0123456789abcdef.seg"]
)  # fmt: skip
def test_a_name_that_is_no_segments_is_refused_before_any_file_is_touched(segment, mapped, name):
    with pytest.raises(InvalidInput, match="not the name of a segment"):
        mapped.request([name, *lend(segment)[1][1:]])


def test_a_foreign_or_missing_file_is_refused(folder, segment, mapped, tmp_path):
    _, ref = lend(segment)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(SIZE))
    makers = (lambda path: path.symlink_to(secret), lambda path: None, Path.mkdir, os.mkfifo, Path.touch)
    for n, make in enumerate(makers):
        name = f"1-{n:016x}.seg"
        make(folder / name)
        with pytest.raises(InvalidInput, match="cannot be mapped by the worker"):
            mapped.request([name, *ref[1:]])
    assert len(mapped) == 0


def test_a_segment_that_shrank_is_refused_and_nobody_dies(folder, segment, mapped):
    _, ref = lend(segment)
    mapped.request(ref)
    os.truncate(folder / segment.name, 0)
    with pytest.raises(InvalidInput, match="after the end"):
        mapped.request(ref)


def test_sweep_takes_what_nobody_holds_and_nothing_else(folder, segment):
    held = child(HOLD, folder)
    name = held.stdout.readline().strip()
    (folder / "other.txt").touch()
    (folder / "1-0123456789abcdef.seg").touch()
    (folder / "1-00000000000000aa.seg").symlink_to("other.txt")
    assert sweep(folder) == 1
    assert {segment.name, name} <= set(files(folder))
    held.kill()
    held.communicate()
    assert sweep(folder) == 1
    assert files(folder) == sorted(["1-00000000000000aa.seg", "other.txt", segment.name])


def test_sweep_of_no_folder_is_nothing(tmp_path):
    assert sweep(tmp_path / "none") == 0


def test_closing_removes_the_file_and_views_stay_valid(folder, segment):
    slot, _ = lend(segment, b"here")
    view = segment.view(slot)
    segment.close()
    segment.close()
    assert files(folder) == []
    assert view[HEADER_BYTES:] == b"here"


def test_the_file_is_ours_alone(folder, segment):
    assert (folder / segment.name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_run_directory_there_is_no_segment(tmp_path):
    with pytest.raises(FileNotFoundError):
        Segment(tmp_path / "run" / "segments", SIZE)


FORK = """
import os, sys
from pathlib import Path
from headway.shm import Segment
segment = Segment(Path(sys.argv[1]), 4096)
if os.fork() == 0:
    segment.close()
    sys.exit(0)
os.wait()
print(os.listdir(sys.argv[1]) == [segment.name])
"""


def test_a_child_does_not_remove_its_parents_segment(folder):
    folder.mkdir()
    assert child(FORK, folder).communicate()[0] == "True\n"
    assert sweep(folder) == 1


FULL = """
import os, sys
from pathlib import Path
from headway.shm import Segment
folder = Path(sys.argv[1])
try:
    Segment(folder, 1 << 20)
except OSError as error:
    print(error.errno, os.listdir(folder))
"""


def test_a_tmpfs_that_is_too_small_is_an_error_and_leaves_nothing(tmp_path):
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path} 2>&1"
    if os.geteuid() or child("", shell=mount).wait():
        pytest.skip("mounting a tmpfs takes root and unshare")
    said = child(FULL, tmp_path / "segments", shell=mount).communicate()[0]
    assert said == f"{errno.ENOSPC} []\n"


def test_segments_of_sweepers_and_makers_at_once_are_never_lost(folder):
    """A sweep between an owner's open and its lock takes the file; the owner notices."""
    folder.mkdir()
    code = """
import sys
from pathlib import Path
from headway.shm import sweep
print("sweeping", flush=True)
while True:
    sweep(Path(sys.argv[1]))
"""
    sweeper = child(code, folder)
    sweeper.stdout.readline()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        segment = Segment(folder, 4096)
        assert (folder / segment.name).exists()
        segment.close()
    sweeper.send_signal(signal.SIGKILL)
    sweeper.communicate()


@pytest.mark.parametrize(
    ("address", "folder"),
    [("ipc:///run/headway/broker.sock", "/run/headway/segments"), ("tcp://127.0.0.1:1", None),
     ("ipc://@abstract", None), ("", None)],
)  # fmt: skip
def test_peers_share_segments_when_their_address_is_a_path(address, folder):
    assert folder_of(address) == (Path(folder) if folder else None)


class Watching:
    """Writes down what is mapped, by address."""

    def __init__(self):
        self.lengths = {}

    def mapped(self, address, length):
        self.lengths[address] = length

    def unmapped(self, address):
        del self.lengths[address]


def test_whoever_watches_is_told_of_each_mapping_once_and_when_it_is_let_go(folder, segment):
    watching = Watching()
    mapped = Mapped(folder, watching)
    slot = segment.take(100)
    ref = [segment.name, slot.offset, slot.generation, HEADER_BYTES, 100]
    view = mapped.request(ref)
    mapped.request(ref)
    assert list(watching.lengths.values()) == [segment.size]
    (address,) = watching.lengths
    assert address + slot.offset + HEADER_BYTES == np.frombuffer(view, np.uint8).ctypes.data
    segment.close()
    mapped.tidy()
    assert watching.lengths == {}


def test_whoever_watches_is_told_when_all_is_closed(folder, segment):
    watching = Watching()
    mapped = Mapped(folder, watching)
    slot = segment.take(100)
    mapped.request([segment.name, slot.offset, slot.generation, HEADER_BYTES, 100])
    mapped.close()
    assert watching.lengths == {} and len(mapped) == 0
