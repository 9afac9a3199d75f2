"""Archives as people make them: with `torch-model-archiver`, from files written by the test."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest

from headway.body import Body, pack_body
from headway.messages import BatchRequest
from tests.worker.bench import Bench

try:
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging import generate_model_archive

    is_installed = True
except ImportError:
    is_installed = False

needs_archiver = pytest.mark.skipif(not is_installed, reason="torch-model-archiver is not installed")
ENDINGS = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}


def archived(
    folder: Path,
    handler: str,
    files: dict[str, str | bytes] | None = None,
    name: str = "m",
    form: str = "default",
    **options: str,
) -> Path:
    """An archive made by the real archiver in `folder`. `files` are written first, beside each other;
    `options` are the archiver's, and name these files."""
    source, export = folder / f"source-{name}", folder / "export"
    source.mkdir(parents=True, exist_ok=True)
    export.mkdir(exist_ok=True)
    for file, content in (files or {}).items():
        data = content if isinstance(content, bytes) else textwrap.dedent(content).encode()
        (source / file).write_bytes(data)
    said = {"model_name": name, "handler": handler, "version": "1.0", "archive_format": form, **options}
    with chdir(source), gathering_in(folder / "tmp"):  # the files are named from where they lie
        generate_model_archive(ModelArchiverConfig(force=True, export_path=str(export), **said))
    return export / f"{name}{ENDINGS[form]}"


@contextmanager
def gathering_in(folder: Path) -> Iterator[None]:
    """The archiver gathers files in TMPDIR/NAME: two tests at once would share that."""
    folder.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def place(bench: Bench, archive: Path, toml: str = "", version: str = "1") -> Path:
    """The archive in a version's folder of the bench's store."""
    folder = bench.write_version(version, f'file = "{archive.name}"\n{toml}', backend="torchserve")
    target = folder / archive.name
    if archive.exists():
        archive.replace(target)
    return folder


def part(data: bytes | str, content_type: str = "") -> Body:
    return Body(data.encode() if isinstance(data, str) else data, content_type)


def asking(body: Body | bytes | str, **options: object) -> BatchRequest:
    """A body request with more options, as a door would send it."""
    packed, said = pack_body(body if isinstance(body, Body) else part(body))
    return BatchRequest(1000, 0, {**said, **options}, packed)
