"""headway_gateway.asgi: the door for other ASGI servers."""

from __future__ import annotations

import falcon.asgi


def test_the_door_reads_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWAY_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWAY_GATEWAY_BODY_BYTES_MAX", "123")
    monkeypatch.setattr("headway.logs.setup", lambda level, form: None)
    from headway_gateway import asgi

    assert all(isinstance(app, falcon.asgi.App) for app in asgi.app.apps.values())
    assert (asgi.settings.run_dir, asgi.settings.body_bytes_max) == (tmp_path, 123)
