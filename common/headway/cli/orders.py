"""The commands that order something: scale, default, split, register, unregister, rescan, drain, workers.

Each is one call of the management address, and one line that says what came of it.

Knows: the orders and their answers. Must not know: how they travel.
"""

from __future__ import annotations

from typing import Any

import click

from headway.cli.managed import json_option, managed, say, waiting
from headway.manage import Management

COPIES = click.IntRange(0, 65536)
SCHEMES = ("http://", "https://", "file://")


@click.command()
@click.argument("model")
@click.option("--min", "least", type=COPIES, required=True, help="at least so many copies")
@click.option("--max", "most", type=COPIES, help="at most so many  [default: as --min]")
@click.option("--version", default="", help="of this version  [default: its default version]")
@waiting
@json_option
@managed
def scale(
    management: Management,
    model: str,
    least: int,
    most: int | None,
    version: str,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Set how many copies MODEL shall have. Between --min and --max the server decides by the load."""
    if most is not None and most < least:
        raise click.UsageError(f"--max {most} is below --min {least}")
    answer = management.scale(model, least, most, version, wait_s)
    copies = f"{answer.get('min')} to {answer.get('max')} copies"
    say(answer, f"{_version_of(answer)}: {copies}, {answer.get('ready')} ready", as_json)


@click.command()
@click.argument("model")
@click.argument("version")
@waiting
@json_option
@managed
def default(management: Management, model: str, version: str, wait_s: float | None, as_json: bool) -> None:
    """Make VERSION what requests get that name none.

    Until it is ready the version before it serves; with --wait this comes back when traffic has moved.
    """
    answer = management.default(model, version, wait_s)
    served = "serves" if answer.get("serving") else "will serve when it is ready"
    say(answer, f"{_version_of(answer)}: {served}", as_json)


@click.command()
@click.argument("model")
@click.argument("weights", metavar="VERSION=WEIGHT...", nargs=-1)
@waiting
@json_option
@managed
def split(
    management: Management, model: str, weights: tuple[str, ...], wait_s: float | None, as_json: bool
) -> None:
    """Share out the requests for MODEL that name no version, by weight: `headway split m 1=90 2=10`.

    Without weights the split ends, and the default version gets all of them.
    """
    answer = management.split(model, dict(map(_weight, weights)), wait_s)
    shares = " ".join(f"{version}={weight:g}" for version, weight in (answer.get("weights") or {}).items())
    is_so = "" if answer.get("serving", True) else ", when all of them are ready"
    say(answer, f"{model}: {f'split {shares}{is_so}' if shares else 'no split'}", as_json)


def _weight(said: str) -> tuple[str, float]:
    version, _, text = said.partition("=")
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not version or not 0 <= weight < float("inf"):
        raise click.BadParameter(f"{said!r} is not VERSION=WEIGHT", param_hint="WEIGHTS")
    return version, weight


@click.command()
@click.argument("source", metavar="PATH|URL")
@click.option("--name", default="", help="with a URL: the model's name  [default: the file's]")
@click.option("--version", default="", help="with a URL: its version  [default: the file's, else 1]")
@waiting
@json_option
@managed
def register(
    management: Management, source: str, name: str, version: str, wait_s: float | None, as_json: bool
) -> None:
    """Serve what is in the model store as NAME or NAME/VERSION, or an archive that a URL leads to.

    A URL must be one that the gateway's setting register_urls allows.
    """
    if source.lower().startswith(SCHEMES):
        answer = management.register_url(source, name, version, wait_s)
    elif name or version:
        raise click.UsageError("--name and --version go with a URL")
    else:
        answer = management.register(source.strip("/"), wait_s)
    _say_versions(answer, "registered", as_json)


@click.command()
@click.argument("model")
@click.option("--version", default="", help="only this version  [default: all]")
@json_option
@managed
def unregister(management: Management, model: str, version: str, as_json: bool) -> None:
    """Serve MODEL no longer. Its folder stays in the model store."""
    _say_versions(management.unregister(model, version), "unregistered", as_json)


def _say_versions(answer: dict[str, Any], done: str, as_json: bool) -> None:
    versions = " ".join(map(str, answer.get("versions") or [])) or "nothing"
    say(answer, f"{answer.get('model')}: {done} {versions}", as_json)


@click.command()
@json_option
@managed
def rescan(management: Management, as_json: bool) -> None:
    """Look what has changed in the model store: new versions are served, those that are gone no longer."""
    answer = management.rescan()
    lines = [f"{what}: {' '.join(answer[what])}" for what in ("added", "changed", "gone") if answer.get(what)]
    lines += [f"broken: {path}: {reason}" for path, reason in (answer.get("broken") or {}).items()]
    say(answer, "\n".join(lines) or "nothing has changed", as_json)


@click.command()
@click.argument("worker")
@waiting
@json_option
@managed
def drain(management: Management, worker: str, wait_s: float | None, as_json: bool) -> None:
    """Have WORKER finish what it has, and leave. Whoever started it may start another in its place."""
    answer = management.drain(worker, wait_s)
    say(answer, f"{worker}: {'gone' if answer.get('gone') else 'draining'}", as_json)


@click.command()
@click.argument("host")
@click.argument("count", metavar="N|auto")
@json_option
@managed
def workers(management: Management, host: str, count: str, as_json: bool) -> None:
    """Set how many workers HOST's agent runs; auto: as many as its own settings say."""
    if count != "auto" and not (count.isdecimal() and int(count) <= 65536):
        raise click.BadParameter(f"{count!r} is neither a number nor auto", param_hint="N|auto")
    answer = management.workers(host, None if count == "auto" else int(count))
    wanted = answer.get("count")
    say(answer, f"{host}: {'as many workers as it says' if wanted is None else f'{wanted} workers'}", as_json)


def _version_of(answer: dict[str, Any]) -> str:
    return f"{answer.get('model')} {answer.get('version')}"
