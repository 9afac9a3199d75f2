"""What an agent writes down for its next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway_worker.agent.records import Record, Records

W1 = Record("w1", "cuda:0", 40, "boot", 7, 12345, 1.5)


def test_what_was_written_is_read_and_what_was_removed_is_not(tmp_path: Path) -> None:
    records = Records(tmp_path / "agent")
    assert records.read() == []
    records.write(Record("w1", "cuda:0", 40, "boot"))
    records.write(W1)
    records.write(Record("w.2", "cpu", 0, "boot"))
    assert records.read() == [Record("w.2", "cpu", 0, "boot"), W1]
    records.remove("w1")
    records.remove("w1")
    assert [record.name for record in records.read()] == ["w.2"]
    assert (tmp_path / "agent").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"name": "w1"}',
        b'{"name": 1, "device": "", "share": 0, "boot_id": ""}',
    ],
)
def test_a_damaged_record_is_removed_and_costs_the_others_nothing(tmp_path: Path, damage: bytes) -> None:
    records = Records(tmp_path)
    records.write(W1)
    (tmp_path / "bad.json").write_bytes(damage)
    assert records.read() == [W1]
    assert [file.name for file in tmp_path.iterdir()] == ["w1.json"]


def test_a_record_under_another_name_is_none(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(W1)
    (tmp_path / "w1.json").rename(tmp_path / "w2.json")
    assert records.read() == []
