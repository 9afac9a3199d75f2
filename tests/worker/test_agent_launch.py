"""How a worker is started, as a command line and as a unit's variables."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from headway.settings import AgentSettings, Shared, WorkerSettings, read
from headway_worker.agent.launch import Launch
from headway_worker.agent.orders import Start

ORDER = Start("w1", "cuda:1", 0)


def launch(run_dir: Path, config: Path | None = None) -> Launch:
    settings = AgentSettings(
        run_dir=run_dir,
        state_dir=run_dir,
        threads=3,
        copies_max=2,
        drain_s=7.0,
        orphan_s=9.0,
        log_format="json",
    )
    return Launch(settings, config)


def test_a_command_line_has_the_workers_settings(tmp_path: Path) -> None:
    said = launch(tmp_path).arguments(ORDER)
    for option in (
        "--name=w1",
        "--device=cuda:1",
        "--threads=3",
        "--copies-max=2",
        "--drain-s=7.0",
        "--orphan-s=9.0",
    ):
        assert option in said
    assert f"--agent-lock={tmp_path}/agent.lock" in said
    assert f"--run-dir={tmp_path}" in said
    assert all(any(a.startswith(f"--{f.name.replace('_', '-')}=") for a in said) for f in fields(Shared))


def test_a_run_directory_is_passed_on_as_it_was_said_for_sockets_have_short_paths(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "long")
    assert f"--run-dir={tmp_path}/s" in launch(tmp_path / "s").arguments(ORDER)
    assert launch(tmp_path / "s").folder == launch(tmp_path / "long").folder


def test_a_share_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    assert not any("mps-share" in a for a in launch(tmp_path).arguments(ORDER))
    assert "--cuda-mps-share=40" in launch(tmp_path).arguments(ORDER._replace(share=40))
    assert launch(tmp_path).unit_variables(ORDER._replace(share=40))["HEADWAY_WORKER_CUDA_MPS_SHARE"] == "40"


def test_the_agents_settings_file_is_the_workers_too(tmp_path: Path) -> None:
    config = tmp_path / "headway.toml"
    assert f"--config={config}" in launch(tmp_path, config).arguments(ORDER)
    assert launch(tmp_path, config).unit_variables(ORDER)["HEADWAY_CONFIG"] == str(config)


def test_a_units_variables_are_settings_that_a_worker_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in launch(tmp_path).unit_variables(ORDER).items():
        monkeypatch.setenv(key, value)
    found = read(WorkerSettings)
    assert (found.name, found.device, found.threads, found.drain_s) == ("w1", "cuda:1", 3, 7.0)
    assert found.copies_max == 2
    assert (found.run_dir, found.state_dir, found.log_format) == (tmp_path, tmp_path, "json")
    assert (found.agent_lock, found.orphan_s) == (f"{tmp_path}/agent.lock", 9.0)
