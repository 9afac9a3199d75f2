"""headway_gateway.__main__: the command."""

from __future__ import annotations

from click.testing import CliRunner

from headway_gateway import __main__ as door


def run(monkeypatch, *arguments: str, code: int = 0):
    seen = []

    def serve(settings):
        seen.append(settings)
        return code

    monkeypatch.setattr(door, "serve", serve)
    monkeypatch.setattr("headway.logs.setup", lambda level, form: None)
    return CliRunner().invoke(door.main, list(arguments)), seen


def test_options_become_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result, seen = run(monkeypatch, "--http", "127.0.0.1:9", "--processes", "3", "--run-dir", str(tmp_path))
    assert result.exit_code == 0
    assert (seen[0].http, seen[0].processes, seen[0].run_dir) == ("127.0.0.1:9", 3, tmp_path)


def test_the_exit_code_is_the_servers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, code=73)[0].exit_code == 73


def test_a_wrong_setting_ends_with_78(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result, seen = run(monkeypatch, "--log-format", "xml")
    assert (result.exit_code, seen) == (78, [])
