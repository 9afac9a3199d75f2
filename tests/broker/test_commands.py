"""The operator's commands, given to a real scheduler on its bench."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Unauthorized,
    UnknownModel,
)
from headway.messages import VERBS, Answer, Command
from headway.models import ModelSpec
from headway_broker.desired import read_desired
from headway_broker.events import ReadStore, Save, StoreRead
from tests.broker.bench import Bench, Sent, copy, spec

TOKEN = "t" * 20
NAMES = ("model", "version", "min", "max", "wait", "weights", "worker", "host", "count", "path", "timeout_ms")
texts = st.sampled_from(["m", "1", "2", "", "m/1", "m/", "/", "w", "host", "x" * 200, "\0", "٣", "1.x"])
values = st.one_of(
    texts,
    st.integers(-1, 1 << 17),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dictionaries(texts, st.one_of(st.integers(-1, 9), st.floats(), st.text(max_size=3)), max_size=3),
)


def order(bench: Bench, verb: str, token: str = TOKEN, **arguments: Any) -> None:
    bench.says("op", Command(7, token, verb, arguments))


def answer_in(sent: Sent) -> dict[str, Any] | None:
    answers: list[Answer] = sent.to("op", Answer)
    return answers[0].body if answers else None


def ordered(bench: Bench, verb: str, **arguments: Any) -> dict[str, Any]:
    """The answer of a command that is answered at once."""
    order(bench, verb, **arguments)
    answer = answer_in(bench.wake())
    assert answer is not None
    return answer


def refused(bench: Bench, verb: str, **arguments: Any) -> tuple[int, str]:
    answer = ordered(bench, verb, **arguments)
    return answer["code"], answer["error"]


def with_store(bench: Bench, sent: Sent, *specs: ModelSpec, error: str = "", **broken: str) -> Sent:
    """The store is read as the scheduler asked."""
    assert any(isinstance(action, ReadStore) for action in sent.actions)
    bench.handle(StoreRead(list(specs), {("m", v[1:]): why for v, why in broken.items()}, error))
    return bench.wake()


def saved(sent: Sent) -> dict[str, Any]:
    [*_, document] = [action.document for action in sent.actions if isinstance(action, Save)]
    read_desired(document)
    return document


def versions_asked(bench: Bench, count: int, worker: str = "w", **options: Any) -> list[str]:
    """Which version each of some requests without one is sent to."""
    seen = []
    for id in range(count):
        bench.ask(id + 1, options=options)
        for who, batch in bench.wake().batches:
            seen += [batch.version] * len(batch.requests)
            bench.answers(who, batch)
    bench.wake()
    return seen


def two_versions() -> Bench:
    bench = Bench(spec(version="1"), spec(version="2"), token=TOKEN)
    bench.join("w", copy(version="1"), copy(version="2"))
    bench.wake()
    return bench


def test_without_the_token_nothing_is_obeyed() -> None:
    bench = Bench(token=TOKEN)
    for token in ("", "wrong", TOKEN + "x"):
        order(bench, "scale", token, model="m", min=3)
        answer = answer_in(bench.wake())
        assert answer and answer["code"] == Unauthorized.code
    assert bench.scheduler.board.copies[("m", "1")] == 1
    nobody = Bench()
    order(nobody, "state", "")
    refusal = answer_in(nobody.wake())
    assert refusal and refusal["code"] == Unauthorized.code, "a broker without a token obeys nobody"


@pytest.mark.parametrize(
    ("verb", "arguments", "says"),
    [
        ("fly", {}, "'fly' is not a command"),
        ("scale", {"model": "m"}, "min is missing"),
        ("scale", {"min": 1}, "model is missing"),
        ("scale", {"model": "m", "min": -1}, "min must be a whole number"),
        ("scale", {"model": "m", "min": True}, "min must be a whole number"),
        ("scale", {"model": "m", "min": 2, "max": 1}, "max must be at least min"),
        ("scale", {"model": "m", "min": 1, "wiat": 1}, "'wiat' is not known"),
        ("scale", {"model": "m", "min": 1, "wait": "yes"}, "wait must be 0 or 1"),
        ("split", {"model": "m", "weights": {"1": -1}}, r"weights\['1'\] must be a number"),
        ("split", {"model": "m", "weights": {"1": 0}}, "one must be above 0"),
        ("split", {"model": "m", "weights": []}, "weights must be a map"),
        ("drain", {"worker": "nobody"}, "no worker 'nobody'"),
        ("workers", {"host": "h", "count": 2}, "host 'h' has no agent"),
        ("register", {"path": "../etc/1"}, "path must be NAME"),
        ("register", {"path": "a/b/c"}, "path must be NAME"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(verb: str, arguments: dict[str, Any], says: str) -> None:
    code, error = refused(Bench(token=TOKEN), verb, **arguments)
    assert code == InvalidInput.code
    assert re.search(says, error)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("scale", {"model": "x", "min": 1}),
        ("scale", {"model": "m", "version": "9", "min": 1}),
        ("default", {"model": "m", "version": "9"}),
        ("split", {"model": "m", "weights": {"1": 1, "9": 1}}),
        ("split", {"model": "x", "weights": {}}),
        ("unregister", {"model": "x"}),
        ("unregister", {"model": "m", "version": "9"}),
        ("describe", {"model": "m", "version": "9"}),
    ],
)
def test_unknown_models_and_versions_are_told(verb: str, arguments: dict[str, Any]) -> None:
    assert refused(Bench(token=TOKEN), verb, **arguments)[0] == UnknownModel.code


def test_scaling_up_loads_more_copies_and_is_kept() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    bench.join("b")
    bench.wake()
    order(bench, "scale", model="m", min=2)
    sent = bench.wake()
    assert answer_in(sent) == {"model": "m", "version": "1", "min": 2, "max": 2, "ready": 1}
    assert sent.orders == [("b", "load", "m")]
    assert saved(sent)["models"]["m"]["copies"] == {"1": [2, 2]}


def test_scaling_with_wait_is_answered_when_the_copies_serve() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    bench.join("b")
    bench.wake()
    order(bench, "scale", model="m", min=2, wait=1)
    assert answer_in(bench.live(5.0, ["a", "b"])) is None
    bench.reports("b", copy())
    answer = answer_in(bench.live(0.3, ["a", "b"]))
    assert answer and answer["ready"] == 2


def test_scaling_beyond_what_fits_says_so_and_leaves_what_serves() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    assert "1 workers suited" in ordered(bench, "scale", model="m", min=3)["short"]
    order(bench, "scale", model="m", min=3, wait=1)
    answer = answer_in(bench.live(3.0, ["a"]))
    assert answer and answer["code"] == NotReady.code and "there is no place for more" in answer["error"]
    assert versions_asked(bench, 1) == ["1"]


def test_scaling_down_unloads_and_never_the_last_that_serves_while_others_load() -> None:
    bench = Bench(spec(copies=2), token=TOKEN)
    bench.host("a")
    bench.host("b")
    order(bench, "scale", model="m", min=1)
    assert [(kind, model) for _, kind, model in bench.wake().orders] == [("unload", "m")]


def test_a_command_that_takes_too_long_is_answered_and_stays_ordered() -> None:
    bench = Bench(token=TOKEN)
    bench.join("a")
    bench.wake()
    order(bench, "scale", model="m", min=1, wait=1, timeout_ms=1000)
    answer = answer_in(bench.live(1.5, ["a"]))
    assert answer and answer["code"] == DeadlineExceeded.code
    assert bench.scheduler.catalog.limits(("m", "1")) == (1, 1)


def test_the_default_moves_at_once_to_a_version_that_is_ready() -> None:
    bench = two_versions()
    assert versions_asked(bench, 2) == ["2", "2"]
    assert ordered(bench, "default", model="m", version="1")["serving"] is True
    assert versions_asked(bench, 2) == ["1", "1"]


def test_traffic_stays_with_the_old_version_until_the_new_one_is_warm() -> None:
    bench = Bench(spec(version="1"), token=TOKEN)
    bench.join("w", copy(version="1"))
    bench.wake()
    order(bench, "rescan")
    sent = with_store(bench, bench.wake(), spec(version="1"), spec(version="2"))
    assert answer_in(sent) == {"added": ["m/2"], "changed": [], "gone": [], "broken": {}}
    assert sent.orders == [("w", "load", "m")]
    assert saved(sent)["models"]["m"]["serving"] == {"1": 1.0}
    bench.ask(100)
    assert bench.wake().batches == [], "its worker is busy with loading"
    bench.reports("w", copy(version="2"))
    sent = bench.wake()
    assert [batch.version for _, batch in sent.batches] == ["1"], "it was asked before traffic moved"
    bench.answers("w", sent.batches[0][1])
    assert [note.event for note in sent.notes if "traffic" in note.event] == ["traffic moved"]
    assert versions_asked(bench, 2) == ["2", "2"]


def test_a_new_version_that_fails_to_load_leaves_the_old_one_serving_and_says_why() -> None:
    bench = two_versions()
    ordered(bench, "default", model="m", version="1")
    order(bench, "rescan")
    with_store(bench, bench.wake(), spec(version="1"), spec(version="2"), spec(version="3"))
    order(bench, "default", model="m", version="3", wait=1)
    assert answer_in(bench.wake()) is None
    bench.reports("w", copy(version="3", state="failed", detail="Traceback\nValueError: bad weights"))
    answer = answer_in(bench.live(0.5, ["w"]))
    assert answer and answer["code"] == NotReady.code and "bad weights" in answer["error"]
    assert versions_asked(bench, 3) == ["1", "1", "1"]
    [third] = ordered(bench, "describe", model="m", version="3")["models"]
    assert "bad weights" in third["error"]
    assert (third["traffic"], third["wanted_traffic"]) == (0.0, 1.0)


def test_a_split_gives_each_version_its_part_and_ends() -> None:
    bench = two_versions()
    assert ordered(bench, "split", model="m", weights={"1": 3, "2": 1})["serving"] is True
    seen = versions_asked(bench, 40)
    assert (seen.count("1"), seen.count("2")) == (30, 10)
    models = ordered(bench, "describe", model="m")["models"]
    assert [m["traffic"] for m in models] == [0.75, 0.25]
    ordered(bench, "split", model="m", weights={})
    assert set(versions_asked(bench, 5)) == {"2"}


def test_a_caller_with_a_key_stays_with_its_version() -> None:
    bench = two_versions()
    ordered(bench, "split", model="m", weights={"1": 50, "2": 50})
    for key in ("alice", "bob", "carol", "dave"):
        assert len(set(versions_asked(bench, 5, sticky=key))) == 1
    everybody = [versions_asked(bench, 1, sticky=f"user {i}")[0] for i in range(100)]
    assert 30 < everybody.count("1") < 70


def test_unregistering_serves_what_was_accepted_then_unloads() -> None:
    bench = two_versions()
    bench.ask(1, version="1")
    bench.ask(2, version="2")
    [(_, first)] = bench.wake().batches[:1]
    assert ordered(bench, "unregister", model="m", version="1") == {"model": "m", "versions": ["1"]}
    bench.ask(3, version="1")
    assert bench.wake().codes() == {3: UnknownModel.code}
    assert first.version == "1"
    bench.answers("w", first)
    codes, orders = {}, []
    for _ in range(30):
        sent = bench.live(0.1, ["w"])
        codes.update(sent.codes())
        orders += sent.orders
        for worker, batch in sent.batches:
            bench.answers(worker, batch)
    assert codes[1] == 0
    assert ("w", "unload", "m") in orders
    bench.reports("w", copy(version="1", state="gone"))
    bench.live(1.5, ["w"])
    assert ("m", "1") not in bench.scheduler.queues


def test_the_version_with_the_traffic_is_not_taken_away_while_another_could_have_it() -> None:
    bench = two_versions()
    code, error = refused(bench, "unregister", model="m", version="2")
    assert code == InvalidInput.code and "set another default" in error
    assert ordered(bench, "unregister", model="m")["versions"] == ["1", "2"]
    assert refused(bench, "describe", model="m")[0] == UnknownModel.code


def test_registering_takes_a_version_back() -> None:
    bench = two_versions()
    ordered(bench, "unregister", model="m", version="1")
    order(bench, "register", path="m/1")
    answer = answer_in(with_store(bench, bench.wake(), spec(version="1"), spec(version="2")))
    assert answer == {"model": "m", "versions": ["1", "2"]}
    bench.reports("w", copy(version="1", state="gone"))
    bench.reports("w", copy(version="1"))
    assert versions_asked(bench, 1) == ["2"]


def test_registering_what_is_not_there_is_broken_or_has_changed_is_refused() -> None:
    bench = two_versions()
    order(bench, "register", path="m/7")
    answer = answer_in(with_store(bench, bench.wake(), spec(version="1"), spec(version="2")))
    assert answer and answer["code"] == UnknownModel.code
    order(bench, "register", path="m/3")
    answer = answer_in(with_store(bench, bench.wake(), spec(version="1"), spec(version="2"), v3="a typo"))
    assert answer and answer["code"] == NotReady.code and "a typo" in answer["error"]
    order(bench, "register", path="m/2")
    answer = answer_in(
        with_store(bench, bench.wake(), spec(version="1"), spec(version="2", batch_size_max=9))
    )
    assert answer and answer["code"] == InvalidInput.code and "has changed" in answer["error"]
    assert versions_asked(bench, 1) == ["2"]


def test_registering_again_tries_a_failed_copy_again() -> None:
    bench = Bench(token=TOKEN)
    bench.join("w")
    bench.wake()
    bench.reports("w", copy(state="failed", detail="no weights"))
    bench.wake()
    order(bench, "register", path="m/1", wait=1)
    sent = with_store(bench, bench.wake(), spec())
    assert sent.orders == [("w", "unload", "m")]
    bench.reports("w", copy(state="gone"))
    assert bench.wake().orders == [("w", "load", "m")]
    bench.reports("w", copy(state="loading"))
    bench.reports("w", copy())
    answer = answer_in(bench.live(0.5, ["w"]))
    assert answer == {"model": "m", "versions": ["1"]}


def test_a_store_that_cannot_be_read_changes_nothing() -> None:
    bench = two_versions()
    order(bench, "rescan")
    answer = answer_in(with_store(bench, bench.wake(), error="models: Input/output error"))
    assert answer and "Input/output error" in answer["error"]
    order(bench, "rescan")
    answer = answer_in(with_store(bench, bench.wake()))
    assert answer and answer["gone"] == [], "an empty store is a mount that is missing"
    assert versions_asked(bench, 1) == ["2"]


def test_a_version_whose_folder_is_gone_goes_and_one_that_was_broken_by_an_edit_stays() -> None:
    bench = two_versions()
    ordered(bench, "default", model="m", version="1")
    order(bench, "rescan")
    answer = answer_in(with_store(bench, bench.wake(), v1="copeis is not known"))
    assert answer and answer["gone"] == ["m/2"] and answer["changed"] == ["m/1"]
    assert versions_asked(bench, 1) == ["1"]


def test_draining_loads_the_copies_elsewhere_before_the_worker_goes() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    bench.join("b")
    bench.wake()
    order(bench, "drain", worker="a", wait=1)
    sent = bench.wake()
    assert sent.orders == [("b", "load", "m")]
    assert versions_asked(bench, 1) == ["1"], "it serves meanwhile"
    assert bench.live(3.0, ["a", "b"]).dismissed == []
    bench.reports("b", copy())
    sent = bench.live(1.5, ["a", "b"])
    assert sent.dismissed[0] == ("a", "drained", 1)
    assert answer_in(sent) == {"worker": "a", "gone": True}


def test_draining_the_only_worker_does_not_wait_for_a_place_that_is_not_there() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    assert ordered(bench, "drain", worker="a") == {"worker": "a", "gone": False}
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    assert bench.live(2.0, ["a"]).dismissed == [], "it finishes what it has"
    bench.answers("a", batch)
    assert bench.wake().dismissed == [("a", "drained", 1)]


def test_orders_survive_a_restart() -> None:
    bench = two_versions()
    ordered(bench, "scale", model="m", version="1", min=0, max=3)
    ordered(bench, "unregister", model="m", version="1")
    order(bench, "register", path="m/1")
    with_store(bench, bench.wake(), spec(version="1"), spec(version="2"))
    bench.reports("w", copy(version="1", state="gone"))
    bench.reports("w", copy(version="1"))
    order(bench, "split", model="m", weights={"2": 90, "1": 10})
    document = saved(bench.wake())
    again = Bench(spec(version="1"), spec(version="2"), token=TOKEN, desired=read_desired(document))
    assert again.scheduler.catalog.serving("m") == {"1": 0.1, "2": 0.9}
    assert again.scheduler.catalog.document() == document


def test_a_version_may_go_while_a_batch_of_it_was_to_be_looked_at_later() -> None:
    bench = Bench(spec(batch_delay_ms=4000, batch_size_max=8), token=TOKEN)
    bench.host("w")
    bench.ask(1)
    bench.wake()
    bench.cancel(1)
    ordered(bench, "unregister", model="m")
    bench.reports("w", copy(state="gone"))
    bench.live(5.0, ["w"])
    assert not bench.scheduler.queues


def test_a_request_that_waits_for_a_version_that_is_unregistered_before_its_load_is_served() -> None:
    bench = Bench(token=TOKEN)
    bench.ask(1)
    bench.wake()
    ordered(bench, "unregister", model="m")
    bench.join("w")
    assert bench.wake().orders == [("w", "load", "m")]
    bench.reports("w", copy())
    [(_, batch)] = bench.wake().batches
    bench.answers("w", batch)
    assert bench.wake().codes() == {1: 0}
    assert ("w", "unload", "m") in bench.live(2.0, ["w"]).orders


def test_a_request_that_waits_is_answered_when_no_copies_are_wanted_any_more() -> None:
    bench = Bench(token=TOKEN)
    bench.ask(1)
    bench.wake()
    order(bench, "scale", model="m", min=0)
    replies = bench.live(1.5).replies()
    assert replies[1].code == NotReady.code and "no copies of version 1 of model 'm' are ordered" in str(
        replies[1].content
    )


@pytest.mark.parametrize("waited_s", [0.0, 5.0])
def test_a_version_that_was_unregistered_and_written_anew_is_loaded_as_it_is_now(waited_s: float) -> None:
    bench = Bench(spec(batch_size_max=2), token=TOKEN)
    bench.host("w")
    ordered(bench, "scale", model="m", min=1, max=3)
    order(bench, "unregister", model="m")
    sent = bench.wake()
    assert answer_in(sent) == {"model": "m", "versions": ["1"]} and sent.orders == [("w", "unload", "m")]
    bench.reports("w", copy(state="gone"))
    bench.live(waited_s, ["w"])
    bench.ask(1)
    assert bench.wake().codes() == {1: UnknownModel.code}
    order(bench, "register", path="m/1")
    changed = spec(batch_size_max=9, copies=2, queue_size_max=7)
    sent = with_store(bench, bench.wake(), changed)
    assert answer_in(sent) == {"model": "m", "versions": ["1"]}
    assert sent.orders == [("w", "load", "m")]
    assert bench.scheduler.catalog.limits(("m", "1")) == (2, 2), "not those of the one that is gone"
    assert bench.scheduler.queues["m", "1"].spec == changed
    bench.reports("w", copy())
    bench.ask(*range(2, 11))
    assert [len(batch.requests) for _, batch in bench.wake().batches] == [9]


def test_a_default_that_was_ordered_stays_when_higher_versions_come() -> None:
    bench = Bench(spec(version="1.0-rc1"), token=TOKEN)
    bench.join("w", copy(version="1.0-rc1"))
    bench.wake()
    order(bench, "default", model="m", version="1.0-rc1")
    assert saved(bench.wake())["models"]["m"]["default"] == "1.0-rc1"
    store = [spec(version="1.0-rc1")]
    for version in ("1.0-rc2", "1", "2.0"):
        store.append(spec(version=version))
        order(bench, "register", path=f"m/{version}")
        with_store(bench, bench.wake(), *store)
        bench.reports("w", copy(version=version))
        bench.live(2.0, ["w"])
        assert versions_asked(bench, 2) == ["1.0-rc1"] * 2
    ordered(bench, "default", model="m", version="2.0")
    assert versions_asked(bench, 2) == ["2.0"] * 2


def test_a_version_scaled_to_nothing_refuses_at_once_whatever_was_there_before() -> None:
    bench = Bench(token=TOKEN)
    bench.host("w")
    ordered(bench, "drain", worker="w")
    bench.ask(1)
    [(_, batch)] = bench.wake().batches
    ordered(bench, "scale", model="m", min=0)
    bench.ask(2)
    reply = bench.wake().replies()[2]
    assert (reply.code, reply.content) == (
        NotReady.code,
        "no copies of version 1 of model 'm' are ordered",
    ), "although one that is about to go could still serve it"
    bench.answers("w", batch)
    assert bench.wake().codes() == {1: 0}, "what it had begun is done"
    ordered(bench, "scale", model="m", min=0, max=1)
    bench.ask(3)
    assert bench.live(2.0, ["w"]).codes() == {}, "it may have one: the request waits"


def test_a_failed_copy_of_a_version_scaled_to_nothing_is_not_the_reason_that_is_said() -> None:
    bench = Bench(token=TOKEN)
    bench.join("w", copy(state="failed", detail="OSError: x"))
    bench.wake()
    ordered(bench, "scale", model="m", min=0)
    bench.ask(1)
    assert "no copies" in str(bench.wake().replies()[1].content)


def test_a_version_without_copies_is_registered_at_once() -> None:
    bench = Bench(token=TOKEN)
    bench.host("w")
    order(bench, "register", path="m/2", wait=1)
    sent = with_store(bench, bench.wake(), spec(), spec(version="2", copies=0))
    assert answer_in(sent) == {"model": "m", "versions": ["1", "2"]}
    assert sent.orders == []


def test_a_version_that_comes_back_changed_is_loaded_anew() -> None:
    bench = two_versions()
    ordered(bench, "default", model="m", version="2")
    bench.ask(1, version="1")
    [(_, batch)] = bench.wake().batches
    ordered(bench, "unregister", model="m", version="1")
    order(bench, "register", path="m/1")
    changed = spec(version="1", batch_size_max=9)
    sent = with_store(bench, bench.wake(), changed, spec(version="2"))
    assert sent.orders == [("w", "unload", "m")]
    bench.answers("w", batch)
    assert bench.wake().codes() == {1: 0}
    bench.reports("w", copy(version="1", state="gone"))
    assert bench.wake().orders == [("w", "load", "m")]
    assert bench.scheduler.queues[("m", "1")].spec == changed


def test_a_store_that_was_read_before_it_was_asked_for_answers_nobody() -> None:
    bench = two_versions()
    order(bench, "rescan")
    bench.wake()
    bench.handle(StoreRead([spec(version="1"), spec(version="2")], {}, asked=False))
    assert answer_in(bench.wake()) is None
    bench.handle(StoreRead([spec(version=v) for v in "123"], {}))
    answer = answer_in(bench.wake())
    assert answer and answer["added"] == ["m/3"]


def test_registering_waits_no_longer_than_its_time() -> None:
    bench = Bench(token=TOKEN)
    order(bench, "register", path="m", wait=1, timeout_ms=1000)
    with_store(bench, bench.wake(), spec())
    answer = answer_in(bench.live(1.5))
    assert answer and answer["code"] == DeadlineExceeded.code


def test_a_retiring_version_is_loaded_nowhere_else_but_for_the_worker_that_drains() -> None:
    bench = two_versions()
    for name in "abc":
        bench.join(name)
    bench.wake()
    bench.ask(1, version="1")
    [(_, batch)] = bench.wake().batches
    ordered(bench, "unregister", model="m", version="1")
    ordered(bench, "drain", worker="w")
    loads = bench.live(3.0, "wabc").orders
    assert ("m", "1") not in {key for w in bench.scheduler.roster if w.name != "w" for key in w.copies}, loads
    bench.answers("w", batch)
    bench.wake()


def test_a_worker_that_was_lost_while_it_drained_drains_when_it_is_back() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    bench.join("b")
    bench.wake()
    ordered(bench, "drain", worker="a")
    bench.live(4.0, ["b"])
    bench.join("a", copy())
    bench.wake()
    assert bench.scheduler.roster.workers[b"a"].draining
    bench.reports("b", copy())
    assert ("a", "drained", 1) in bench.live(2.0, ["a", "b"]).dismissed


@given(st.sampled_from([*VERBS, "fly"]), st.dictionaries(st.sampled_from(NAMES), values, max_size=4))
def test_no_command_whatever_ends_the_broker(verb: str, arguments: dict[str, Any]) -> None:
    bench = two_versions()
    order(bench, verb, **arguments)
    bench.wake()
    bench.handle(StoreRead([spec(version="1")], {("m", "2"): "a typo"}))
    bench.live(0.3, ["w"])


def test_the_broker_obeys_every_verb_of_the_protocol_and_no_other() -> None:
    refusal = refused(Bench(token=TOKEN), "fly")[1]
    assert refusal.endswith("there are " + ", ".join(VERBS))
