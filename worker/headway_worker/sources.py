"""Imports the Python files in a model version's folder.

Knows: Python's import system.
Must not know: torch, what the files define.

The folder becomes a package of its own, under a name made from the folder's path: relative imports
work in it, two versions do not meet, and nothing is put on `sys.path`. All files of a version belong to the
one package, so a helper that two of them import is imported once.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

from headway.errors import SettingsError

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def import_file(folder: Path, file: str) -> ModuleType:
    """The module in `file`, relative to the version's folder; imported on the first call.

    Raises: SettingsError when the file cannot be a module; whatever its code raises.
    """
    parts = file.removesuffix(".py").split("/")
    if not file.endswith(".py") or not all(map(_PART.fullmatch, parts)):
        raise SettingsError(f"{file!r} is not the path of a Python module, such as model.py")
    if not (folder / file).is_file():
        raise SettingsError(f"there is no {file} in {folder}")
    package = package_name(folder)
    if package not in sys.modules:
        module = ModuleType(package, f"The files of the model in {folder}.")
        module.__path__ = [str(folder)]
        sys.modules[package] = module
    importlib.invalidate_caches()  # the files may be younger than Python's listing of the folder
    return importlib.import_module(".".join([package, *parts]))


def forget(folder: Path) -> None:
    """Drop the folder's modules, so that a later import reads the files again."""
    package = package_name(folder)
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]


def package_name(folder: Path) -> str:
    """A package's name for a folder: readable in a traceback, and no other folder's."""
    readable = re.sub(r"\W", "_", f"{folder.parent.name}_{folder.name}")
    digest = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    return f"headway_model_{readable}_{digest[:8]}"
