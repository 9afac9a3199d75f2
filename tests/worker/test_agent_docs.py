"""docs/agent.md says what the settings are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import headway
from headway.settings import AgentSettings, Shared

TEXT = (Path(headway.__file__).parents[2] / "docs/agent.md").read_text()


def test_every_setting_of_the_agent_is_documented_with_its_default() -> None:
    rows = [
        line.split(" | ") for line in TEXT.splitlines() if line.startswith("| `") and line.count("|") == 4
    ]
    said = {row[0].strip("| `"): row[1].strip("`") for row in rows}
    own = [f for f in fields(AgentSettings) if f.name not in {s.name for s in fields(Shared)}]
    assert list(said) == [f.name for f in own]
    for f in own:
        assert f.name == "name" or said[f.name] == str(f.default)
