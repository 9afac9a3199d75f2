"""The documentation's tables are compared with the code's own."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import headway
from headway.cli.main import IN
from headway.errors import CallerError, HeadwayError, NoRoom, ServerError
from headway.models import ModelSpec, TensorSpec
from headway.tensors import BY_NAME
from headway.torchserve import reading

ROOT = Path(headway.__file__).parents[2]
MODELS = (ROOT / "docs/models.md").read_text()
TORCHSERVE = (ROOT / "docs/torchserve-configuration.md").read_text()


def keys_of(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table after `heading`, split into cells."""
    table = text.split(heading, 1)[1].split("\n\n")
    rows = next(part for part in table if part.lstrip().startswith("| key |"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.strip().split("\n")[2:]]


def test_every_key_of_model_toml_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1] for row in keys_of(MODELS, "## model.toml")}
    given_by_the_store = {"name", "version", "folder"}
    assert set(documented) == {f.name for f in fields(ModelSpec)} - given_by_the_store
    for f in fields(ModelSpec):
        _, stated, default = documented.get(f.name, "").partition(", ")
        if stated:
            assert f.default is not MISSING
            assert default.strip('"').lower() in (str(f.default).lower(), str(f.default).removesuffix(".0"))


def test_every_key_of_an_input_is_documented() -> None:
    documented = [row[0].strip("`") for row in keys_of(MODELS, "`[[inputs]]` and `[[outputs]]`:")]
    assert documented == [f.name for f in fields(TensorSpec)]


def test_every_dtype_is_documented() -> None:
    row = next(line for line in MODELS.split("\n") if line.startswith("| `dtype`"))
    for name in BY_NAME:
        bits = re.fullmatch(r"(u?int)(16|32)", name)  # inside "uint8 to uint64"
        assert f"`{name}`" in row or bits, name


def test_every_error_that_a_caller_may_see_is_documented() -> None:
    text = (ROOT / "docs/clients.md").read_text()
    seen: list[type[HeadwayError]] = [*CallerError.__subclasses__(), *NoRoom.__subclasses__()]
    for error in [*seen, *ServerError.__subclasses__()]:
        assert f"`{error.__name__}`" in text or error.__name__ == "Cancelled"


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_command_over_the_management_address_and_every_script_is_documented() -> None:
    text = (ROOT / "docs/management.md").read_text()
    for command in [*IN, "top"]:
        assert f"| `headway {command}" in text, command
    for script in (ROOT / "scripts").iterdir():
        if "_ops" in script.read_text(errors="replace") and not script.name.startswith("_"):
            assert f"| `{script.name}" in text, script.name


def test_every_metric_is_documented() -> None:
    source = (ROOT / "gateway/headway_gateway/metrics.py").read_text()
    text = (ROOT / "docs/http.md").read_text()
    for name in re.findall(r'"(headway_[a-z_]+)"', source):
        assert f"`{name}`" in text or f"`{name}_total`" in text, name


def test_every_property_of_torchserves_is_documented() -> None:
    table = TORCHSERVE.partition("## Properties")[2].partition("\n## ")[0]
    names = "".join(row.split("|")[1] for row in table.split("\n") if row.startswith("| `"))
    documented = set(re.findall(r"`(\w+)`", names))
    assert documented == {*reading.KNOWN, *reading.MEANINGLESS}
