"""Settings for all tests, and the mark of the pure ones."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from hypothesis import settings

# How fast something is, is measured under benchmarks/; a busy machine shall not fail a test.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")

ROOT = Path(__file__).parent.parent
FOLDERS = {"headway": "common", "headway_broker": "broker", "headway_worker": "worker"}


def pure_files() -> set[Path]:
    """The tests of the modules that the floor plan calls pure, and the simulator's."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    modules = config["importlinter:contract:pure"]["source_modules"].split()
    named = (module.rsplit(".", 1) for module in modules)
    files = {ROOT / "tests" / FOLDERS[package] / f"test_{name}.py" for package, name in named}
    return files | {
        ROOT / "tests" / "sim" / f"test_{name}.py"
        for name in ("fleet_sim", "placement_sim", "simulation", "yard")
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
