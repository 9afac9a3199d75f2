"""What an archive requires, installed for it alone."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from headway.torchserve.properties import Properties
from headway.torchserve.registration import Registration, remove_all, write_version
from headway.torchserve.requirements import InstallError, installed

# In place of pip, so that nothing is fetched: does as its arguments say.
PIP = """
import sys
from pathlib import Path
arguments = sys.argv[1:]
assert arguments[0] == "install" and "--no-input" in arguments
wanted = Path(arguments[arguments.index("-r") + 1]).read_text().split()
if "nonsense" in wanted:
    sys.exit("no such package: nonsense")
for name in wanted:
    (Path(arguments[arguments.index("--target") + 1]) / f"{name}.py").touch()
"""


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (tmp_path / "pip.py").write_text(PIP)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return (sys.executable, str(tmp_path / "pip.py"))


def registration(folder: Path, requirements: str | None, **model: str) -> Registration:
    with zipfile.ZipFile(folder / "m.mar", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        if requirements is not None:
            packed.writestr("r.txt", requirements)
    return Registration("m", "1.0", "m.mar", str(folder / "m.mar"))


def test_what_is_required_is_in_a_folder_that_goes_with_the_version(
    tmp_path: Path, pip: tuple[str, ...]
) -> None:
    made = installed(registration(tmp_path, "one\ntwo\n", requirementsFile="r.txt"), pip)
    packages = Path(made.packages)
    assert sorted(path.name for path in packages.iterdir()) == ["one.py", "two.py"]
    assert list((tmp_path / "tmp").iterdir()) == [packages]
    (tmp_path / "store").mkdir()
    folder = write_version(tmp_path / "store", made, Properties())
    assert f'"packages" = "{packages}"' in (folder / "model.toml").read_text()
    remove_all(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("requirements", "model"), [(None, {}), ("  \n", {"requirementsFile": "r.txt"})])
def test_where_nothing_is_required_nothing_is_made(
    tmp_path: Path, pip: tuple[str, ...], requirements: str | None, model: dict[str, str]
) -> None:
    asked = registration(tmp_path, requirements, **model)
    assert installed(asked, pip) == asked
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("requirements", "said"),
    [("nonsense", "no such package: nonsense"), (None, "r.txt is not in the")],
)
def test_a_failure_is_said_as_torchserve_says_it(
    tmp_path: Path, pip: tuple[str, ...], requirements: str | None, said: str
) -> None:
    with pytest.raises(InstallError) as raised:
        installed(registration(tmp_path, requirements, requirementsFile="r.txt"), pip)
    assert str(raised.value) == "Custom pip package installation failed for model m"
    assert said in raised.value.said
    assert list((tmp_path / "tmp").iterdir()) == []
