"""Settings for all tests, and the mark of the pure ones."""

from __future__ import annotations

import atexit
import configparser
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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m pure` nothing else is even imported: torch alone takes seconds."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "pure" and is_test and collection_path not in PURE else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for test in items:
        if test.path in PURE:
            test.add_marker("pure")
