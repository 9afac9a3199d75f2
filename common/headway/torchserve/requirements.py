"""An archive's `requirements.txt`, installed for one version of its model, and for nobody else.

Knows: pip, where the file is in an archive. Must not know: how a worker finds what was installed, who
wants it.

Each version has a folder of its own outside of Headway's environment. It is in the temporary folder: the
store may be memory.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from headway.errors import HeadwayError
from headway.torchserve.peek import member, peek
from headway.torchserve.registration import Registration

PIP = (sys.executable, "-m", "pip")
TIMEOUT_S = 1800.0
_SIZE_BYTES_MAX = 1 << 20
_SAID_MAX = 2000  # characters of what pip said


class InstallError(HeadwayError):
    """pip did not do it; the message is what TorchServe's clients know, `said` the end of pip's own words."""

    def __init__(self, model: str, said: str) -> None:
        super().__init__(f"Custom pip package installation failed for model {model}")
        self.said = said


def installed(registration: Registration, pip: tuple[str, ...] = PIP) -> Registration:
    """The registration, and what its archive requires installed; the same where that is nothing. Waits for
    pip, perhaps for minutes. `remove_version` removes it again. Raises: InstallError; SettingsError for an
    archive that is broken."""
    archive = Path(registration.archive)
    file = peek(archive).manifest.requirements_file
    content = member(archive, file, _SIZE_BYTES_MAX) if file else b""
    if content is None:
        raise InstallError(registration.model, f"{file} is not in the archive")
    if not content.strip():
        return registration
    folder = Path(tempfile.mkdtemp(prefix="headway-packages-"))
    try:
        _install(registration.model, content, folder, pip)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return dataclasses.replace(registration, packages=str(folder))


def _install(model: str, content: bytes, folder: Path, pip: tuple[str, ...]) -> None:
    with tempfile.NamedTemporaryFile(prefix="requirements-", suffix=".txt") as file:
        file.write(content)
        file.flush()
        options = ["--disable-pip-version-check", "--no-input", "--target", str(folder), "-r", file.name]
        try:
            done = subprocess.run(
                [*pip, "install", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(model, str(error)) from None
    if done.returncode:
        raise InstallError(model, done.stdout.decode(errors="replace")[-_SAID_MAX:])
