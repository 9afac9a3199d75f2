"""Settings for all tests, the mark of the pure ones, and the order of the files."""

from __future__ import annotations

import atexit
import configparser
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# How fast something is, is measured under benchmarks/; a busy machine shall not fail a test.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")

# No test writes where the user's own server keeps its orders and its token.
os.environ["HEADWAY_STATE_DIR"] = tempfile.mkdtemp(prefix="headway-tests-")
atexit.register(shutil.rmtree, os.environ["HEADWAY_STATE_DIR"], ignore_errors=True)

# One thread for one operator of torch or numpy, here and in every process that a test starts. There are more
# processes than cores, and threads of one operator wait for each other by spinning: as soon as one of them
# has no core, a convolution of 30 ms takes a second of all of them. (Who tests numbers of threads sets them.)
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "headway": "common",
    "headway_broker": "broker",
    "headway_gateway": "gateway",
    "headway_worker": "worker",
}


def pure_files() -> set[Path]:
    """The tests of the modules that the floor plan calls pure, and the simulator's."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    modules = config["importlinter:contract:pure"]["source_modules"].split()
    named = (module.replace(".", "/", 1).replace(".", "_").split("/") for module in modules)
    files = {ROOT / "tests" / FOLDERS[package] / f"test_{name}.py" for package, name in named}
    return files | {
        ROOT / "tests" / "sim" / f"test_{name}.py"
        for name in ("fleet_sim", "operations", "placement_sim", "simulation", "yard")
    }


PURE = pure_files()

# Begun first, for they take longest: a long file that is begun last is waited for by all the others. One that
# should be here and is not, or is no longer long, costs some seconds and nothing else.
LONGEST = (
    "systemd/test_real.py",
    "system/test_operated.py",
    "scripts/test_operations.py",
    "worker/test_loop.py",
    "system/test_faults.py",
    "torchserve/test_differential_flow.py",
    "sim/test_day.py",
    "system/test_up.py",
    "system/test_two_hosts.py",
    "worker/test_place.py",
    "examples/test_efficientnet_lite0.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """The order of the files is ours. pytest-xdist's own, those with most tests first, keeps long ones."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m pure` nothing else is even imported: torch alone takes seconds."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "pure" and is_test and collection_path not in PURE else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for test in items:
        if test.path in PURE:
            test.add_marker("pure")
    waiting = {test.path for test in items if test.get_closest_marker("system")}
    items.sort(key=lambda test: turn_of(test.path, test.path in waiting))


def pytest_collection_finish() -> None:
    """Thousands of tests and the modules that they imported are here to stay: whoever collects garbage in a
    test, as a runner does at every load and unload, need not look through all of them each time."""
    gc.collect()
    gc.freeze()


def turn_of(path: Path, is_waiting: bool) -> int:
    """Where a file stands: the longest, what starts processes and waits for them, the rest, the pure ones."""
    name = path.as_posix().removeprefix(f"{ROOT.as_posix()}/tests/")
    if name in LONGEST:
        return LONGEST.index(name)
    return len(LONGEST) + (0 if is_waiting else 2 if path in PURE else 1)
