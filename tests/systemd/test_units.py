"""The units as they are installed, judged by systemd's own tools and compared with the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from headway.exits import FINAL

ROOT = Path(__file__).parents[2]
INSTALL = [sys.executable, str(ROOT / "scripts" / "install-systemd")]
PROGRAMS = ("headway-broker", "headway-gateway", "headway-worker", "headway-agent")
GPU = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
# What `systemd-analyze security` may say at most, in tenths: docs/systemd.md quotes what it says.
EXPOSURE_MAX = {
    "headway-broker.service": 14,
    "headway-gateway.service": 14,
    "headway-worker@w0.service": 18,
    "headway-agent.service": 18,
    f"headway-cuda-mps@{GPU}.service": 15,
}
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)"
)


def install(root: Path, venv: Path, *options: str) -> str:
    command = [*INSTALL, "--root", str(root), "--venv", str(venv), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def units() -> Iterator[Path]:
    """The folder of the installed units, for programs that are there but do nothing."""
    with TemporaryDirectory(prefix="hw-units-") as folder:
        venv = Path(folder) / "venv"
        (venv / "bin").mkdir(parents=True)
        for name in PROGRAMS:
            (venv / "bin" / name).write_text("#!/bin/sh\n")
            (venv / "bin" / name).chmod(0o755)
        install(Path(folder), venv, "--devices", GPU, "--cuda-mps")
        made = Path(folder) / "etc" / "systemd" / "system"
        for template, instance in (("worker", "w0"), ("cuda-mps", GPU)):  # a name without it cannot be judged
            shutil.copy(
                made / f"headway-{template}@.service", made / f"headway-{template}@{instance}.service"
            )
        yield made


def services() -> list[str]:
    return sorted(path.name for path in (ROOT / "systemd").glob("*.service"))


def values(unit: str, key: str) -> list[str]:
    """What a unit file says of a key, once for each time that it does."""
    text = (ROOT / "systemd" / unit).read_text()
    return re.findall(rf"^{re.escape(key)}=(.*)$", text, re.MULTILINE)


@needs_analyze
def test_systemd_has_nothing_to_say_against_them(units: Path) -> None:
    """Unknown keys and wrong values are only warned of: nothing may be said at all."""
    names = sorted(str(path) for path in units.glob("headway*") if path.is_file())
    done = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "headway" in line]
    assert (done.returncode, ours) == (0, [])


@needs_analyze
def test_a_key_that_systemd_does_not_know_would_be_seen(units: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "headway-wrong.service"
    wrong.write_text((units / "headway-broker.service").read_text().replace("WatchdogSec", "WatchdogSeconds"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(wrong)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "WatchdogSeconds" in done.stderr


@needs_analyze
@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_what_they_may_do_is_little(units: Path, unit: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX[unit]}"]
    done = subprocess.run(
        [*command, str(units / unit)], capture_output=True, text=True, check=False, timeout=60
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250: it judges no file")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_codes_after_which_nothing_is_started_again_are_those_of_the_code() -> None:
    final = {int(code) for code in FINAL}
    for unit in services():
        if unit != "headway-cuda-mps@.service":  # nvidia's program, with codes of its own
            [codes] = values(unit, "RestartPreventExitStatus")
            assert set(map(int, codes.split())) == final, unit


def test_every_service_is_part_of_the_target_and_starts_with_it() -> None:
    assert len(services()) == 5
    for unit in services():
        assert values(unit, "PartOf") == values(unit, "WantedBy") == ["headway.target"], unit


def test_gateway_and_workers_do_not_need_each_other_or_the_broker() -> None:
    for unit in services():
        for key in ("Requires", "Requisite", "BindsTo", "Wants"):
            assert values(unit, key) == [], unit


def test_all_share_the_run_directory_and_none_takes_it_along() -> None:
    for unit in services():
        assert values(unit, "ReadWritePaths") == ["/run/headway"], unit
        assert "headway" not in values(unit, "RuntimeDirectory"), unit
        assert values(unit, "RemoveIPC") == ["no"], unit
        assert values(unit, "User") == ["headway"], unit


def test_what_sees_the_gpu_is_not_hardened_beyond_what_cuda_survives() -> None:
    for unit in ("headway-worker@.service", "headway-agent.service", "headway-cuda-mps@.service"):
        for key in ("PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset", "PrivateUsers"):
            assert values(unit, key) == [], unit
        assert "char-nvidia* rw" in values(unit, "DeviceAllow"), unit


# ---- the installer, into a folder ----


def files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_installing_again_changes_nothing_and_keeps_what_was_configured(tmp_path: Path) -> None:
    install(tmp_path, Path("/opt/x"), "--workers", "2", "--devices", "cuda:0,cuda:1")
    assert (tmp_path / "etc/headway/workers/w1.env").read_text() == "HEADWAY_WORKER_DEVICE=cuda:1\n"
    (tmp_path / "etc/headway/headway.toml").write_text("# mine\n")
    before = files(tmp_path)
    install(tmp_path, Path("/opt/x"), "--workers", "2")
    assert files(tmp_path) == before


def test_the_units_name_the_environment_that_they_run_from(tmp_path: Path) -> None:
    install(tmp_path, Path("/srv/hw"))
    found = files(tmp_path / "etc" / "systemd")
    assert "ExecStart=/srv/hw/bin/headway-broker\n" in found["system/headway-broker.service"]
    assert not any("@PREFIX@" in text for text in found.values())


def test_workers_with_cuda_mps_are_tied_to_the_daemon_of_their_device(tmp_path: Path) -> None:
    other = GPU.replace("8932", "0000")
    install(tmp_path, Path("/opt/x"), "--workers", "3", "--devices", f"{GPU},{other}", "--cuda-mps")
    system = tmp_path / "etc/systemd/system"
    tied = (system / "headway-worker@w1.service.d/cuda-mps.conf").read_text()
    assert f"BindsTo=headway-cuda-mps@{other}.service" in tied
    assert f"CUDA_MPS_PIPE_DIRECTORY=/run/headway/cuda-mps-{other}" in tied
    clients = (system / f"headway-cuda-mps@{GPU}.service.d/workers.conf").read_text()
    assert "Wants=headway-worker@w0.service headway-worker@w2.service\n" in clients
    install(tmp_path, Path("/opt/x"), "--workers", "3")
    assert not list(system.glob("headway-worker@*.d/cuda-mps.conf"))


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    assert "headway-broker.service" in install(tmp_path, Path("/opt/x"), "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_removed_nothing_of_it_is_left_but_configuration_and_drop_ins(tmp_path: Path) -> None:
    install(tmp_path, Path("/opt/x"), "--devices", GPU, "--cuda-mps")
    mine = tmp_path / "etc/systemd/system/headway-worker@.service.d/limits.conf"
    mine.parent.mkdir()
    mine.write_text("[Service]\nLimitNOFILE=100\n")
    install(tmp_path, Path("/opt/x"), "--remove")
    configuration = {"etc/headway/headway.toml", "etc/headway/workers/w0.env"}
    assert set(files(tmp_path)) == {*configuration, str(mine.relative_to(tmp_path))}
    install(tmp_path, Path("/opt/x"), "--remove", "--purge")
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--cuda-mps"], "UUIDs"),
        (["--purge"], "--remove"),
        (["--venv", "relative/path"], "absolute"),
        (["--prefix", "/opt/has space"], "plain"),
        (["--prefix", "/opt/%n"], "plain"),
        (["--devices", "cuda:0,,"], "device"),
        (["--devices", "cuda:0\nUser=root"], "device"),
        (["--workers", "-1"], "number"),
        (["--nonsense"], "unrecognized"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(
    tmp_path: Path, options: list[str], reason: str
) -> None:
    done = subprocess.run(
        [*INSTALL, "--root", str(tmp_path), *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2 and reason in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_exit_codes() -> None:
    done = subprocess.run([*INSTALL, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "exit codes:" in done.stdout and "--purge" in done.stdout
