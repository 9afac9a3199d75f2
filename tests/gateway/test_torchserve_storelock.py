"""headway_gateway.torchserve.storelock: one at a time, in whichever process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from headway.torchserve.registration import HIDDEN
from headway_gateway.torchserve import storelock

HOLDER = """
import asyncio, sys
from pathlib import Path
from headway_gateway.torchserve import storelock

async def body():
    async with storelock.held(Path(sys.argv[1])):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(body())
"""


def test_who_dies_lets_go(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"

        async def body() -> None:
            waiting = asyncio.create_task(_take(tmp_path))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            other.kill()
            await asyncio.wait_for(waiting, 30)

        asyncio.run(body())


async def _take(store: Path) -> None:
    async with storelock.held(store):
        pass


def test_what_a_dead_process_was_making_is_swept_and_what_is_young_is_not(tmp_path: Path) -> None:
    old, young = tmp_path / f"{HIDDEN}old", tmp_path / f"{HIDDEN}young"
    for folder in (old, young):
        (folder / "in").mkdir(parents=True)
    os.utime(old, (time.time() - 100, time.time() - 100))
    asyncio.run(_take(tmp_path))
    assert not old.exists()
    assert young.exists()
