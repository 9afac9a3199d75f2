"""A workflow's archive (`.war`), unpacked into the store where all gateway processes find it.

    STORE/.workflows/NAME/workflow.json    what it was registered as
    STORE/.workflows/NAME/files/           what was in the archive

Knows: the archive's manifest, the folder. Must not know: models, requests, HTTP.

It is believed as little as any archive: see `unpack`. A workflow is put in place whole, by a rename.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import SettingsError
from headway.models import NAME
from headway.torchserve.yamltext import load_yaml
from headway_gateway.torchserve.workflows.spec import Spec, spec_of
from headway_gateway.unpack import Effort, unpack

FOLDER, FILES, ABOUT = ".workflows", "files", "workflow.json"
MANIFEST = "WAR-INF/MANIFEST.json"
TEXT_BYTES_MAX = 1 << 20
UNPACKED_BYTES_MAX, UNPACK_S = 1 << 30, 120.0


@dataclass(frozen=True)
class Workflow:
    """`handler`: the file of its functions in `files`, "" if it has none."""

    name: str
    url: str
    files: Path
    handler: str
    spec: Spec

    def model(self, node: str) -> str:
        """What a node is called as a model."""
        return f"{self.name}__{node}"


def put(war: Path, store: Path, url: str, name: str = "") -> Workflow:
    """Unpack it into the store. `name` in place of the archive's own. Raises: FileExistsError for a name that
    is taken; SettingsError naming what is wrong; InvalidDag; any of `unpack`'s."""
    root = store / FOLDER
    root.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".", dir=root))
    try:
        effort = Effort(UNPACKED_BYTES_MAX, UNPACK_S, threading.Event())
        unpack(war, made / FILES, True, effort)
        name = name or _manifest(made / FILES)["workflowName"]
        if not NAME.fullmatch(name):
            raise SettingsError(f"{name!r:.60} is no name for a workflow: letters, digits, '_', '-' and '.'")
        (made / ABOUT).write_text(json.dumps({"name": name, "url": url}))
        read(made)
        _publish(made, root / name)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return read(root / name)


def _publish(made: Path, place: Path) -> None:
    try:
        made.rename(place)  # not over a folder with something in it
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(place.name) from None
        raise


def find(store: Path, name: str) -> Workflow | None:
    """None: there is no workflow of this name."""
    folder = store / FOLDER / name
    return read(folder) if NAME.fullmatch(name) and (folder / ABOUT).is_file() else None


def names(store: Path) -> list[str]:
    """Of all workflows, sorted."""
    return sorted(path.parent.name for path in (store / FOLDER).glob(f"[!.]*/{ABOUT}"))


def remove(store: Path, name: str) -> None:
    """Take it out of the store, at once and whole."""
    gone = Path(tempfile.mkdtemp(prefix=".", dir=store / FOLDER))
    (store / FOLDER / name).rename(gone / "gone")
    shutil.rmtree(gone, ignore_errors=True)


def read(folder: Path) -> Workflow:
    """The workflow in a folder. Raises: SettingsError, InvalidDag."""
    about, files = json.loads((folder / ABOUT).read_text()), folder / FILES
    manifest = _manifest(files)
    spec = spec_of(load_yaml(_text(files, manifest["specFile"]), manifest["specFile"]))
    handler = manifest["handler"]
    functions = [node.name for node in spec.nodes.values() if not node.url]
    if functions and not (handler and (files / handler).is_file()):
        raise SettingsError(
            f"node {functions[0]!r} has no url, and the archive no handler with such a function"
        )
    return Workflow(about["name"], about["url"], files, handler, spec)


def _manifest(files: Path) -> dict[str, str]:
    """The texts of its part `workflow`; "" for what is not there."""
    try:
        found: Any = json.loads(_text(files, MANIFEST))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{MANIFEST} is not JSON: {error}") from None
    said = found.get("workflow") if isinstance(found, dict) else None
    if not isinstance(said, dict):
        raise SettingsError("Missing Workflow entry in manifest file.")
    texts = {key: said.get(key) or "" for key in ("workflowName", "specFile", "handler")}
    for key, value in texts.items():
        if not isinstance(value, str) or (key != "workflowName" and "/" in value):
            raise SettingsError(f"{MANIFEST}: workflow.{key} must be the name of a file, not {value!r:.60}")
    if not texts["workflowName"]:
        raise SettingsError("Workflow name is not defined.")
    if not texts["specFile"]:
        raise SettingsError(f"{MANIFEST}: workflow.specFile is missing")
    return texts


def _text(files: Path, name: str) -> bytes:
    try:
        with (files / name).open("rb") as file:
            text = file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"{name}: {error.strerror}") from None
    if len(text) > TEXT_BYTES_MAX:
        raise SettingsError(f"{name} has more than {TEXT_BYTES_MAX} bytes")
    return text
