"""An archive's Python files, importable by their bare names while its own code runs, and by nobody else.

Knows: Python's import system, the thread's working folder. Must not know: handlers, models.

Handlers expect a process of their own: their folder first on `sys.path` and the working folder, `ts` at the
top level. Here several archives share a process, each perhaps with a `common.py` of its own. So all that is
true only while code of theirs runs: `entered` puts the folder, the archive's modules and `ts` in place, and
takes them away again together with what was imported meanwhile from the folder. What others have under the
same names is put aside and back. As long as it lasts, `importlib`, pickle and `sys.modules` work as the
handler expects, in threads that it starts as well.

What it cannot do: a thread of a handler's that goes on between calls, and imports a file of the archive for
the first time then, does not find it.

Two models never run at the same time in a worker, so one archive at most is in place. A name of Python's
standard library, of torch's or numpy's is never put aside: all processes need these.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import takewhile
from pathlib import Path
from types import ModuleType

log = logging.getLogger("headway.worker")
TS = "ts"
_REAL = "headway_worker.torchserve.ts"
_EVERYBODYS = sys.stdlib_module_names | {"torch", "numpy", "headway", "headway_worker"}
_CLONE_FS = 0x200  # linux/sched.h
_PRIVATE = threading.local()
_IN_PLACE = threading.RLock()


class Modules(AbstractContextManager[None]):
    """Those of one archive, in `folder`, and of the packages in `more`, which are its own as well (all
    absolute, without links)."""

    def __init__(self, folder: Path, more: Sequence[Path] = ()) -> None:
        self._folder = str(folder)
        self._roots = [self._folder, *map(str, more)]
        self._inside = tuple(root + os.sep for root in self._roots)
        self._paths = [*self._roots]
        self._own: dict[str, ModuleType] = {}
        self._names = self._found()

    def entered(self) -> AbstractContextManager[None]:
        """For as long as code of the archive runs. Not to be entered twice at once."""
        return self

    def __enter__(self) -> None:
        # PERF: no generators; with one for the modules and one for the folder a batch took 25 us more after a
        # pause, 3 without one
        _IN_PLACE.acquire()
        try:
            _go_to(self._folder)
        except BaseException:
            _IN_PLACE.release()
            raise
        self._aside = self._put_aside()
        sys.modules.update(self._own)
        self._last = next(reversed(sys.modules))
        sys.path[:0] = self._paths
        self._path = [*sys.path]
        sys.meta_path.insert(0, _FINDER)

    def __exit__(self, *raised: object) -> None:
        try:
            sys.meta_path.remove(_FINDER)
            self._take_away(self._last)
            if sys.path == self._path:  # PERF: as a rule, and to look at each takes 5 us of a batch
                del sys.path[: len(self._paths)]
            else:
                self._take_paths()
            sys.modules.update(self._aside)
        finally:
            try:
                _go_back()
            finally:
                _IN_PLACE.release()

    def refresh(self) -> None:
        """See files that were written since the folder was looked at."""
        self._names = self._found()
        importlib.invalidate_caches()

    def forget(self) -> None:
        """Let go of the modules."""
        self._own.clear()
        for path in [p for p in sys.path_importer_cache if self._is_inside(p)]:
            del sys.path_importer_cache[path]

    def _found(self) -> frozenset[str]:
        """Top-level names that the archive defines."""
        names = {TS}
        for folder in self._paths:
            for entry in _entries(folder):
                if entry.endswith(".py") or (Path(folder) / entry / "__init__.py").is_file():
                    names.add(entry.removesuffix(".py"))
                elif entry.endswith(".so"):
                    names.add(entry.partition(".")[0])
        return frozenset(names - _EVERYBODYS)

    def _put_aside(self) -> dict[str, ModuleType]:
        """Others' modules under the archive's names, taken out of Python's table."""
        if sys.modules.keys().isdisjoint(self._names):
            return {}
        names = [name for name in sys.modules if name.partition(".")[0] in self._names]
        return {name: sys.modules.pop(name) for name in names}

    def _take_away(self, last: str) -> None:
        """The archive's modules out of Python's table: those that it had, and what came after `last`."""
        found = list(self._own)
        if next(reversed(sys.modules)) != last:  # PERF: there are thousands, and rarely a new one
            found += takewhile(lambda name: name != last, list(reversed(sys.modules)))
        self._own = {}
        for name in found:
            if name in sys.modules and self._is_own(name, sys.modules[name]):
                self._own[name] = sys.modules.pop(name)

    def _is_own(self, name: str, module: ModuleType) -> bool:
        if name.partition(".")[0] in self._names:
            return True
        file = getattr(module, "__file__", None)
        where = [file] if file else [*getattr(module, "__path__", ())][:1]
        return any(isinstance(path, str) and self._is_inside(path) for path in where)

    def _take_paths(self) -> None:
        """What the archive's code added to `sys.path` for folders of its own stays its own."""
        inside = [path for path in sys.path if isinstance(path, str) and self._is_inside(path)]
        others = [path for path in sys.path if path not in inside]
        if inside != self._paths:
            self._paths = [*dict.fromkeys([*self._roots, *inside])]
            self._names = self._found()
        sys.path[:] = others

    def _is_inside(self, path: str) -> bool:
        return path in self._roots or path.startswith(self._inside)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """`ts.x` is the very module that Headway has under its own name: it is not loaded twice."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != TS and not fullname.startswith(TS + "."):
            return None
        try:
            real = importlib.util.find_spec(_REAL + fullname[len(TS) :])
        except ModuleNotFoundError:
            return None
        if real is None:
            return None
        is_package = real.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # Python takes what stands here after this for the module that was asked for.
        sys.modules[module.__name__] = importlib.import_module(_REAL + module.__name__[len(TS) :])


_FINDER = _Finder()


def _go_to(folder: str) -> None:
    """Make it the thread's working folder, and no other thread's: theirs may hold relative paths."""
    if _has_own_folder():
        os.chdir(folder)


def _go_back() -> None:
    """To the folder that it was at the thread's first call."""
    if _has_own_folder():
        os.chdir(_PRIVATE.before)


def _has_own_folder() -> bool:
    """Whether this thread's working folder is its own; made so at the first call (Linux needs no right for
    that)."""
    if not hasattr(_PRIVATE, "folder"):
        unshare = getattr(ctypes.CDLL(None), "unshare", None)
        _PRIVATE.folder = unshare is not None and unshare(_CLONE_FS) == 0
        _PRIVATE.before = os.getcwd()  # noqa: PTH109
        if not _PRIVATE.folder:  # a container's filter, perhaps
            log.warning("archives are not served in their own folder: unshare is not allowed here")
    return bool(_PRIVATE.folder)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
