"""From a handler's name to something to call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.errors import SettingsError
from headway_worker.torchserve.entry import entry_of
from headway_worker.torchserve.modules import Modules

CLASS = (
    "class Mine:\n    def initialize(self, c): self.c = c\n    def handle(self, d, c): return [self.c, d]\n"
)


def called(folder: Path, handler: str, **files: str) -> Any:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    with Modules(folder.resolve()).entered():
        return entry_of(handler, folder, "context")("data", "context")


@pytest.mark.parametrize("handler", ["mine", "mine.py", "/home/somebody/mine.py", "src/mine"])
def test_only_the_last_part_of_a_path_counts(tmp_path: Path, handler: str) -> None:
    assert called(tmp_path, handler, mine=CLASS) == ["context", "data"]


def test_a_function_comes_before_a_class(tmp_path: Path) -> None:
    both = CLASS + "seen = []\ndef handle(d, c):\n    seen.append(d)\n    return seen\n"
    assert called(tmp_path, "mine", mine=both) == [None, "data"]
    assert called(tmp_path, "mine:other", mine="def other(d, c): return (d, c)\n") == ("data", "context")


def test_imported_classes_and_helpers_do_not_count(tmp_path: Path) -> None:
    base = "from ts.torch_handler.base_handler import BaseHandler\nclass Helper: pass\n"
    assert called(tmp_path, "mine", mine=base + CLASS) == ["context", "data"]


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("", "the archive's manifest names none"),
        (":handle", "the archive's manifest names none"),
        ("mine:1", "is not module, module.py or module:function"),
        ("a b", "is not module, module.py or module:function"),
        ("mine:nothing", "there is no function 'nothing' in mine"),
        ("nothing", "there is no nothing.py in the archive, and no default handler 'nothing'"),
        ("densenet_handler", "TorchServe's densenet_handler is not there yet"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path, handler: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        called(tmp_path, handler, mine=CLASS)
    assert reason in str(refused.value)


def test_what_a_handler_cannot_import_is_named_and_not_the_handler(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_there'"):
        called(tmp_path, "mine", mine="import not_there\n" + CLASS)
