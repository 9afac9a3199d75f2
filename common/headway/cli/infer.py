"""`headway infer`: one request to a running server over ZeroMQ, its answer on the terminal.

Knows: the direct client, files, media types. Must not know: what a model does with them.
"""

from __future__ import annotations

import mimetypes
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from headway.body import Body
from headway.cli.connection import ASK_TIMEOUT_S, address_option, client_of
from headway.cli.options import settings_options
from headway.cli.output import console
from headway.settings import Shared
from headway.tensors import Tensors

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@settings_options(Shared)
@click.option("--image", type=FILE, help="send this file's bytes, with the media type of its name")
@click.option("--json", "text", metavar="TEXT", help="send this JSON")
@click.option("--input", "inputs", metavar="NAME=FILE.npy", multiple=True, help="send this array; repeatable")
@click.option("--batched", is_flag=True, help="the arrays have a leading batch dimension")
@click.option("--version", default="", help="the model's version  [default: its default version]")
@click.option("--timeout-s", type=float, default=60.0, show_default=True, help="how long to wait")
@click.option("--raw", is_flag=True, help="print the answer's body as it came")
@address_option
def command(
    model: str,
    settings: Shared,
    image: Path | None,
    text: str | None,
    inputs: tuple[str, ...],
    batched: bool,
    version: str,
    timeout_s: float,
    raw: bool,
    address: str | None,
) -> None:
    """Send one request to MODEL of a running server, without HTTP.

    Errors of the server end with exit code 75 where trying again may help, else 1.
    """
    if sum([image is not None, text is not None, bool(inputs)]) != 1:
        raise click.UsageError("name one of --image, --json and --input")
    if batched and not inputs:
        raise click.UsageError("--batched goes with --input")
    arrays = dict(_array(given) for given in inputs)
    body = _file(image) if image else Body((text or "").encode(), "application/json")
    with client_of(settings, address) as client:
        client.models(ASK_TIMEOUT_S)  # is anybody there? a request would wait for longer
        if arrays:
            show_tensors(client.infer(model, arrays, version=version, timeout_s=timeout_s, batched=batched))
        else:
            show_body(client.predict(model, body, version=version, timeout_s=timeout_s), raw)


def show_body(body: Body, raw: bool) -> None:
    """JSON indented and coloured, other text as it is; on request, or when it is neither, the bare bytes."""
    data = bytes(body.data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raw = True
    if raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif "json" in body.content_type:
        console().print_json(text, indent=2)
    else:
        click.echo(text)


def show_tensors(tensors: Tensors) -> None:
    """Each array's name, dtype and shape, and (of a large one, some of) its values."""
    for name, array in tensors.items():
        click.echo(f"{name}  {array.dtype} {list(array.shape)}")
        click.echo("  " + np.array2string(array, threshold=20, precision=6, prefix="  "))


def _file(path: Path) -> Body:
    return Body(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream")


def _array(given: str) -> tuple[str, Any]:
    name, equals, path = given.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{given!r} is not NAME=FILE.npy", param_hint="--input")
    try:
        return name, np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--input") from None
