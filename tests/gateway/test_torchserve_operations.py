"""headway_gateway.torchserve.operations and shelf: what each order comes to, over a broker without
processes."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headway.errors import BrokerUnreachable
from headway.torchserve.registering import Wish
from headway.torchserve.registration import read_registration, write_version
from headway_gateway.torchserve import operations
from headway_gateway.torchserve.operations import ALL, Done
from headway_gateway.torchserve.refusal import Refusal
from tests.gateway.torchserve_broker import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def refused(work: Coroutine[Any, Any, Any]) -> tuple[int, str, str]:
    with pytest.raises(Refusal) as caught:
        asyncio.run(work)
    return caught.value.status, caught.value.type, caught.value.message


def register(yard: Yard, name: str = "m", version: str = "1.0", workers: int | None = 1, **more: Any) -> Done:
    wish = Wish(yard.archive(name, version, more.pop("config", "")), initial_workers=workers, **more)
    done: Done = run(yard.operations.register(wish, synchronous=True))
    return done


def workers_of(yard: Yard, model: str = "m", version: str = "1.0") -> tuple[int, int]:
    found = read_registration(yard.store / model / version)
    return found.workers_min, found.workers_max


# ---- register ----


def test_a_model_without_workers_is_registered_and_says_so(yard: Yard) -> None:
    text = 'Model "m" Version: 1.0 registered with 0 initial workers. '
    more = "Use scale workers API to add workers for the model."
    assert register(yard, workers=0) == Done(200, text + more)
    assert yard.broker.versions == {("m", "1.0"): 0}
    assert "scale" not in yard.broker.verbs()


def test_a_synchronous_registration_waits_for_its_workers(yard: Yard) -> None:
    assert register(yard, workers=2) == Done(200, 'Model "m" Version: 1.0 registered with 2 initial workers')
    verb, given = yard.broker.orders[-1]
    assert (verb, given["min"], given["wait"]) == ("scale", 2, 1)


def test_an_asynchronous_registration_is_processing(yard: Yard) -> None:
    wish = Wish(yard.archive(), initial_workers=1)
    assert run(yard.operations.register(wish, synchronous=False)) == Done(202, "Processing worker updates...")
    assert yard.broker.versions == {("m", "1.0"): 1}
    assert yard.broker.verbs() == ["register", "default"]


def test_an_archive_that_would_write_elsewhere_is_not_registered(yard: Yard) -> None:
    name = yard.archive()
    with zipfile.ZipFile(yard.archives / name, "a") as more:
        more.writestr("../escaped.txt", "")
    status, kind, text = refused(yard.operations.register(Wish(name), synchronous=True))
    assert (status, kind) == (500, "InternalServerException")
    assert text.startswith("Failed to save model: m-1.0.mar: '../escaped.txt' is refused")
    assert yard.broker.versions == {}


def test_only_the_first_version_of_a_model_becomes_its_default(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    assert yard.broker.verbs().count("default") == 1
    assert yard.broker.defaults == {"m": "1.0"}


def test_workers_are_the_properties_default_where_nobody_says(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_workers_per_model=3)
    register(yard, workers=None)
    assert workers_of(yard) == (3, 3)


def test_the_name_that_is_wished_counts_more_than_the_manifests(yard: Yard) -> None:
    register(yard, model_name="other")
    assert list(yard.broker.versions) == [("other", "1.0")]


def test_a_version_that_is_there_is_a_conflict(yard: Yard) -> None:
    register(yard)
    with pytest.raises(Refusal) as caught:
        register(yard)
    text = "Model version 1.0 is already registered for model m"
    assert (caught.value.status, caught.value.type, caught.value.message) == (
        409,
        "ConflictStatusException",
        text,
    )
    assert yard.broker.versions == {("m", "1.0"): 1}


def test_of_many_at_once_in_two_processes_exactly_one_registers(tmp_path: Path) -> None:
    one = Yard(tmp_path)
    yards = [one, Yard(tmp_path, one)]
    for yard in yards:
        yard.broker.pause_s = 0.01
    wish = Wish(one.archive(), initial_workers=0)

    async def all_of_them() -> list[Any]:
        work = [yard.operations.register(wish, True) for yard in yards for _ in range(4)]
        return await asyncio.gather(*work, return_exceptions=True)

    came = run(all_of_them())
    assert sorted(getattr(each, "status", 0) for each in came) == [200] + [409] * 7
    assert [verb for yard in yards for verb in yard.broker.verbs()] == ["register", "default"]


def test_a_model_that_does_not_start_is_gone_again(yard: Yard) -> None:
    yard.broker.failing["m"] = "Traceback\nValueError: no weights"
    work = yard.operations.register(Wish(yard.archive(), initial_workers=1), True)
    text = "Failed to start workers for model m version: 1.0"
    assert refused(work) == (500, "InternalServerException", text)
    assert yard.broker.versions == {}
    assert not (yard.store / "m").exists()
    assert (yard.archives / "m-1.0.mar").exists()


def test_what_somebody_else_registered_in_its_place_stays(yard: Yard) -> None:
    wish = Wish(yard.archive(), initial_workers=1)

    async def others() -> None:
        await yard.operations.unregister("m")
        await yard.operations.register(wish, synchronous=False)

    yard.broker.meanwhile = others
    text = "Model version: 1.0 does not exist for model: m"
    assert refused(yard.operations.register(wish, True)) == (404, "ModelVersionNotFoundException", text)
    assert yard.broker.versions == {("m", "1.0"): 1}
    assert (yard.store / "m" / "1.0").exists()


def test_a_model_that_somebody_else_scales_while_it_starts_stays(yard: Yard) -> None:
    yard.broker.meanwhile = lambda: yard.operations.scale("m", None, 0)
    assert register(yard) == Done(202, "Processing worker updates...")
    assert yard.broker.versions == {("m", "1.0"): 0}


def test_a_model_that_somebody_else_unregisters_while_it_starts_is_not_found(yard: Yard) -> None:
    yard.broker.meanwhile = lambda: yard.operations.unregister("m")
    wish = Wish(yard.archive(), initial_workers=1)
    assert refused(yard.operations.register(wish, True))[:2] == (404, "ModelNotFoundException")


def test_of_two_who_scale_at_once_the_first_is_told_that_it_goes_on(yard: Yard) -> None:
    register(yard, workers=0)
    yard.broker.meanwhile = lambda: yard.operations.scale("m", None, 0)
    assert run(yard.operations.scale("m", None, 1, synchronous=True)) == Done(
        206, "Workers scaling in progress..."
    )


def test_the_reason_why_it_does_not_start_is_in_the_log(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    yard.broker.failing["m"] = "Traceback\nValueError: no weights"
    refused(yard.operations.register(Wish(yard.archive(), initial_workers=1), True))
    assert "no weights" in str([getattr(record, "facts", {}) for record in caplog.records])


@pytest.mark.parametrize(
    "reason", ["torch.OutOfMemoryError: CUDA out of memory.", "worker ended: ran out of memory"]
)
def test_a_model_that_has_no_memory_to_start_is_507(yard: Yard, reason: str) -> None:
    yard.broker.failing["m"] = reason
    assert refused(yard.operations.register(Wish(yard.archive(), initial_workers=1), True))[0] == 507


def test_a_wrong_runtime_is_refused_before_the_archive_is_looked_for(yard: Yard) -> None:
    work = yard.operations.register(Wish("not there", runtime="perl"), True)
    assert refused(work) == (400, "BadRequestException", "Invalid RuntimeType value: perl")


def test_an_archive_that_does_not_say_its_name_must_be_given_one(yard: Yard) -> None:
    with zipfile.ZipFile(yard.archives / "nameless.mar", "w") as packed:
        packed.writestr("h.py", "")
    work = yard.operations.register(Wish("nameless.mar", initial_workers=0), True)
    assert refused(work) == (400, "InvalidModelException", "Model name is not defined.")
    run(yard.operations.register(Wish("nameless.mar", model_name="n", initial_workers=0), True))
    assert list(yard.broker.versions) == [("n", "1.0")]


def test_a_file_that_is_no_archive_is_an_invalid_model(yard: Yard) -> None:
    (yard.archives / "text.mar").write_text("hello")
    status, kind, message = refused(yard.operations.register(Wish("text.mar"), True))
    assert (status, kind) == (400, "InvalidModelException")
    assert "text.mar" in message


@pytest.mark.parametrize("name", ["a/b", "..", "a b", ""])
def test_names_that_no_model_can_have_are_refused(yard: Yard, name: str) -> None:
    wish = Wish(yard.archive(), model_name=name, initial_workers=0)
    if not name:
        assert run(yard.operations.register(wish, True)).status == 200
        return
    assert refused(yard.operations.register(wish, True))[:2] == (400, "BadRequestException")
    assert not list(yard.store.glob("*/"))


def test_what_a_dead_process_left_is_taken_over(yard: Yard) -> None:
    register(yard)
    left = read_registration(yard.store / "m" / "1.0")
    run(yard.operations.unregister("m"))
    write_version(yard.store, left, yard.properties)  # and then it died: the broker was not told
    assert refused(yard.operations.describe("m"))[0] == 404
    assert register(yard).status == 200
    assert yard.broker.versions == {("m", "1.0"): 1}


def test_what_a_dead_process_left_can_be_unregistered(yard: Yard) -> None:
    register(yard)
    left = replace(read_registration(yard.store / "m" / "1.0"), version="2.0")
    write_version(yard.store, left, yard.properties)
    assert run(yard.operations.unregister("m", "2.0")).status == 200
    assert not (yard.store / "m" / "2.0").exists()


def test_an_archive_that_is_taken_over_is_not_removed_though_it_had_been_downloaded(yard: Yard) -> None:
    register(yard)
    left = replace(read_registration(yard.store / "m" / "1.0"), downloaded=True)
    run(yard.operations.unregister("m"))
    write_version(yard.store, left, yard.properties)
    register(yard)
    assert (yard.archives / "m-1.0.mar").exists()


def test_a_folder_that_is_nobodys_registration_is_left_alone(yard: Yard) -> None:
    (yard.store / "m" / "1.0").mkdir(parents=True)
    (yard.store / "m" / "1.0" / "model.toml").write_text("theirs")
    assert refused(yard.operations.register(Wish(yard.archive(), initial_workers=0), True))[0] == 409
    assert (yard.store / "m" / "1.0" / "model.toml").read_text() == "theirs"


def test_a_broker_that_does_not_answer_is_503(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def state() -> Any:
        raise BrokerUnreachable("no broker")

    monkeypatch.setattr(yard.broker, "state", state)
    assert refused(yard.operations.describe("m")) == (503, "ServiceUnavailableException", "no broker")


# ---- scale ----


@pytest.mark.parametrize(
    ("now", "least", "most", "copies"),
    [(1, 3, None, 3), (4, 1, 2, 2), (2, 1, 4, 2), (1, 2, 4, 2), (3, 0, None, 0)],
)
def test_the_most_only_limits_and_what_was_ordered_is_kept(
    yard: Yard, now: int, least: int, most: int | None, copies: int
) -> None:
    register(yard, workers=now)
    done = run(yard.operations.scale("m", None, least, most, synchronous=True))
    assert done == Done(200, f"Workers scaled to {least} for model: m")
    assert yard.broker.versions == {("m", "1.0"): copies}
    assert workers_of(yard) == (least, least if most is None else most)
    described = run(yard.operations.describe("m"))[0]
    assert (described["minWorkers"], described["maxWorkers"]) == workers_of(yard)
    assert len(described["workers"]) == copies


def test_scaling_says_which_version_if_one_was_named(yard: Yard) -> None:
    register(yard)
    done = run(yard.operations.scale("m", "1.0", 1, 1, synchronous=True))
    assert done.text == "Workers scaled to 1 for model: m, version: 1.0"


def test_scaling_that_is_not_waited_for_is_processing(yard: Yard) -> None:
    register(yard)
    assert run(yard.operations.scale("m", None, 2)) == Done(202, "Processing worker updates...")
    assert yard.broker.versions == {("m", "1.0"): 2}


def test_scaling_that_takes_longer_is_in_progress(yard: Yard) -> None:
    register(yard)
    yard.broker.slow.add("m")
    assert run(yard.operations.scale("m", None, 2, synchronous=True)) == Done(
        206, "Workers scaling in progress..."
    )


def test_workers_that_do_not_go_in_time_are_in_progress(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    register(yard, workers=2)
    monkeypatch.setattr(operations, "FEWER_S", 0.2)
    monkeypatch.setattr(type(yard.broker), "_scale", lambda self, given: None)
    assert run(yard.operations.scale("m", None, 1, synchronous=True)).status == 206


def test_workers_that_do_not_start_leave_the_model_registered(yard: Yard) -> None:
    register(yard)
    yard.broker.failing["m"] = "no"
    text = "Failed to start workers for model m version: null"
    assert refused(yard.operations.scale("m", None, 2, synchronous=True)) == (
        500,
        "InternalServerException",
        text,
    )
    assert ("m", "1.0") in yard.broker.versions


@pytest.mark.parametrize(("least", "most"), [(3, 2), (1, -1), (-1, 1)])
def test_numbers_of_workers_that_make_no_sense_are_bad_requests(yard: Yard, least: int, most: int) -> None:
    register(yard)
    assert refused(yard.operations.scale("m", None, least, most))[:2] == (400, "BadRequestException")


def test_what_is_not_there_cannot_be_scaled(yard: Yard) -> None:
    register(yard)
    assert refused(yard.operations.scale("x", None)) == (404, "ModelNotFoundException", "Model not found: x")
    text = "Model version: 9 does not exist for model: m"
    assert refused(yard.operations.scale("m", "9")) == (404, "ModelVersionNotFoundException", text)


# ---- describe, list ----


def test_a_description_has_torchserves_keys_in_their_order(yard: Yard) -> None:
    config = (
        "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 4\nmaxBatchDelay: 7\nresponseTimeout: 9\njobQueueSize: 5"
    )
    register(yard, config=config, batch_size=3, workers=1)
    yard.broker.queued = 2
    said = run(yard.operations.describe("m"))
    assert len(said) == 1
    text = json.dumps({key: value for key, value in said[0].items() if key != "workers"})
    assert text == (
        '{"modelName": "m", "modelVersion": "1.0", "modelUrl": "m-1.0.mar", "runtime": "python", '
        '"minWorkers": 1, "maxWorkers": 2, "batchSize": 3, "maxBatchDelay": 7, '
        '"responseTimeout": 9, "startupTimeout": 120, '
        '"maxRetryTimeoutInSec": 300, "clientTimeoutInMills": 0, "parallelType": "", "parallelLevel": 0, '
        '"deviceType": "cpu", "continuousBatching": false, "useJobTicket": false, "useVenv": false, '
        '"stateful": false, "sequenceMaxIdleMSec": 0, "sequenceTimeoutMSec": 0, "maxNumSequence": 0, '
        '"maxSequenceJobQueueSize": 0, "loadedAtStartup": false, '
        '"jobQueueStatus": {"remainingCapacity": 3, "pendingRequests": 2}}'
    )
    assert list(said[0])[-2:] == ["workers", "jobQueueStatus"]


def test_all_versions_are_described_and_none_without_a_model(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    said = run(yard.operations.describe("m", ALL, customized=True))
    assert [one["modelVersion"] for one in said] == ["1.0", "2.0"]
    assert not yard.broker.asked
    assert refused(yard.operations.describe("x", ALL))[2] == "Model not found: x"
    assert refused(yard.operations.describe("x", "1"))[2] == "Model not found: x"


@pytest.mark.parametrize(("answer", "said"), [(b'{"a": 1}', {"a": 1}), (b"[1]", {}), (b"text", {})])
def test_a_models_own_description_is_asked_for(yard: Yard, answer: bytes, said: dict[str, Any]) -> None:
    register(yard)
    yard.broker.answer = answer
    described = run(yard.operations.describe("m", None, customized=True))[0]
    assert described["customizedMetadata"] == said
    assert list(described)[-1] == "customizedMetadata"
    asked = yard.broker.asked[0]
    assert (asked.model, asked.version, asked.options["describe"]) == ("m", "1.0", "true")


def test_without_workers_nobody_describes(yard: Yard) -> None:
    register(yard, workers=0)
    text = 'Model "m" has no worker to serve describe request. Please use scale workers API to add workers.'
    assert refused(yard.operations.describe("m", None, customized=True)) == (
        503,
        "ServiceUnavailableException",
        text,
    )


@pytest.mark.parametrize(
    ("limit", "token", "names", "more"),
    [
        (100, 0, "abc", None),
        (-1, -5, "abc", None),
        (101, 0, "abc", None),
        (2, 0, "ab", "2"),
        (1, 2, "c", "3"),  # as TorchServe has it: there is one more page, and it is empty
        (1, 3, "", None),
        (0, 0, "", "0"),
        (5, 99, "", None),
    ],
)
def test_models_are_listed_page_by_page(
    yard: Yard, limit: int, token: int, names: str, more: str | None
) -> None:
    for name in "bca":
        register(yard, name, workers=0)
    register(yard, "a", "2.0", workers=0)
    said = run(yard.operations.list_models(limit, token))
    assert said.get("nextPageToken") == more
    assert said["models"] == [{"modelName": n, "modelUrl": f"{n}-1.0.mar"} for n in names]


# ---- default, unregister ----


def test_another_default_is_set(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    text = 'Default version successfully updated for model "m" to "2.0"'
    assert run(yard.operations.set_default("m", "2.0")) == Done(200, text)
    assert run(yard.operations.describe("m"))[0]["modelVersion"] == "2.0"
    text = "Model version 9 does not exist for model m"
    assert refused(yard.operations.set_default("m", "9")) == (404, "ModelVersionNotFoundException", text)
    assert refused(yard.operations.set_default("x", "9"))[2] == "Model not found: x"


def test_what_was_the_default_goes_as_soon_as_the_new_one_serves(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    run(yard.operations.set_default("m", "2.0"))
    yard.broker.keeps.add("m")
    assert run(yard.operations.unregister("m", "1.0")).status == 200
    [waited] = [given for verb, given in yard.broker.orders if verb == "default" and given.get("wait")]
    assert (waited["version"], waited["timeout_ms"]) == ("2.0", 150_000)
    assert list(yard.broker.versions) == [("m", "2.0")]


def test_what_was_the_default_stays_where_the_new_one_does_not_start(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    run(yard.operations.set_default("m", "2.0"))
    yard.broker.keeps.add("m")
    yard.broker.failing["m"] = "no weights"
    assert refused(yard.operations.unregister("m", "1.0"))[0] == 403
    assert (yard.store / "m" / "1.0").exists()
    assert set(yard.broker.versions) == {("m", "1.0"), ("m", "2.0")}


def test_a_default_version_goes_last(yard: Yard) -> None:
    register(yard)
    register(yard, version="2.0")
    why = (403, "InvalidModelVersionException", "Cannot remove default version for model m")
    assert refused(yard.operations.unregister("m")) == why
    assert refused(yard.operations.unregister("m", "1.0")) == why
    assert run(yard.operations.unregister("m", "2.0")) == Done(200, 'Model "m" unregistered')
    assert run(yard.operations.unregister("m")) == Done(200, 'Model "m" unregistered')
    assert yard.broker.versions == {}
    assert not (yard.store / "m").exists()
    assert refused(yard.operations.unregister("m"))[2] == "Model not found: m"


def test_an_unknown_version_is_not_unregistered(yard: Yard) -> None:
    register(yard)
    text = "Model version: 9 does not exist for model: m"
    assert refused(yard.operations.unregister("m", "9")) == (404, "ModelVersionNotFoundException", text)
    assert refused(yard.operations.unregister("m", "../m/1.0"))[0] == 404


def test_a_model_is_ready_with_workers(yard: Yard) -> None:
    register(yard, workers=0)
    assert run(yard.operations.has_workers("m")) is False
    run(yard.operations.scale("m", None, 1))
    assert run(yard.operations.has_workers("m")) is True
    assert refused(yard.operations.has_workers("x"))[2] == "Model not found: x"


# ---- snapshots ----


def test_every_change_leaves_a_snapshot_with_what_was_ordered(tmp_path: Path) -> None:
    yard = Yard(tmp_path, config_snapshots=True, log_location=str(tmp_path / "logs"))
    register(yard)
    run(yard.operations.scale("m", None, 2, 5))
    found = sorted((tmp_path / "logs" / "config").glob("*-snapshot.cfg"))
    assert len(found) == 2
    assert "minWorkers" in found[1].read_text()
    refused(yard.operations.set_default("m", "9"))
    assert len(list((tmp_path / "logs" / "config").iterdir())) == 2


def test_a_snapshot_that_cannot_be_written_undoes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    yard = Yard(tmp_path, config_snapshots=True, log_location=str(tmp_path / "file"))
    assert register(yard).status == 200
