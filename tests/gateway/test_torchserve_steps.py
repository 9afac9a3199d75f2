"""TorchServe's headers of sequences, through the door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headway import errors
from headway.torchserve.registration import Registration
from tests.gateway.torchserve_door import Door, fails, headers_of, register

ID, START, END = "ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end"
STATEFUL = Registration("m", "1.0", "m.mar", "/m.mar", stateful=True, sequence_idle_ms=1000)


def stateful(folder: Path, **said: Any) -> Door:
    door = Door(folder, **said)
    register(door.client.store, STATEFUL)
    return acquainted(door)


def acquainted(door: Door) -> Door:
    """Its processes have asked the broker once."""
    assert door.get("/models", door="management").status_code == 200
    return door


def asked(door: Door, path: str = "/predictions/m/1.0", **headers: str) -> dict[str, Any]:
    answer = door.post(path, b"x", headers=headers)
    assert answer.status_code == 200, answer.text
    last = door.client.calls[-1]
    said = {**last.options, "headers": headers_of(last)}
    assert said["headers"] == json.loads(answer.content)["headers"], "the handler sees what was asked"
    return said


def test_the_headers_say_which_sequence_and_where_in_it(tmp_path: Path) -> None:
    door = stateful(tmp_path)
    said = asked(door, **{ID: "s", START: "true", END: "True"})
    assert (said["sequence"], said["sequence_start"], said["sequence_end"]) == ("s", "true", "true")
    said = asked(door, **{ID: "s", START: "no"})
    assert said["sequence"] == "s" and not {"sequence_start", "sequence_end"} & set(said)


def test_a_request_without_an_id_starts_a_sequence_of_its_own(tmp_path: Path) -> None:
    door = stateful(tmp_path)
    names = {asked(door)["sequence"] for _ in range(2)} | {asked(door, **{ID: ""})["sequence"]}
    assert len(names) == 3 and all(name.startswith("ts-seq-") for name in names)
    last = door.client.calls[-1]
    assert headers_of(last)[ID] == last.options["sequence"]
    assert (headers_of(last)[START], last.options["sequence_start"]) == ("true", "true")


def test_every_route_asks_for_the_sequence(tmp_path: Path) -> None:
    door = stateful(tmp_path)
    for path in ("/explanations/m/1.0", "/m/1.0/predict"):
        assert asked(door, path, **{ID: "s"})["sequence"] == "s"


def test_the_names_of_the_headers_are_properties(tmp_path: Path) -> None:
    door = stateful(tmp_path, ts_header_key_sequence_id="x-call", ts_header_key_sequence_start="x-first")
    said = asked(door, **{"x-call": "s", "x-first": "true"})
    assert (said["sequence"], said["sequence_start"]) == ("s", "true")


def test_a_model_without_sequences_is_asked_as_ever(tmp_path: Path) -> None:
    door = acquainted(Door(tmp_path))
    said = asked(door, **{ID: "s"})
    assert "sequence" not in said and said["headers"][ID] == "s"
    assert START not in asked(door)["headers"]


def test_an_id_counts_before_anybody_knows_what_the_model_is(tmp_path: Path) -> None:
    assert asked(Door(tmp_path), "/predictions/m", **{ID: "s"})["sequence"] == "s"


def test_one_that_is_not_open_is_told_as_torchserve_does_or_why(tmp_path: Path) -> None:
    over = fails(errors.NoSequence("sequence 's' of 'm': its worker was lost"))
    answer = Door(tmp_path, {"m": over}).post("/predictions/m", headers={ID: "s"})
    assert (answer.status_code, answer.json()["type"]) == (503, "ServiceUnavailableException")
    assert answer.json()["message"].endswith("inference request: sequence 's' of 'm': its worker was lost")
    said = {"headway_telling_messages": False}
    answer = Door(tmp_path, {"m": over}, **said).post("/predictions/m", headers={ID: "s"})
    assert answer.json()["message"].endswith("closed, or expired; or exceeds maxSequenceJobQueueSize")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    answer = stateful(tmp_path).post("/predictions/m/1.0", headers={ID: "x" * 257})
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")
