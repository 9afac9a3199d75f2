"""Copies, traffic and workers brought to what should be: a real scheduler on its bench."""

from __future__ import annotations

from headway.errors import NotReady
from headway.messages import Copy
from headway_broker.events import StoreRead, WorkerGone
from headway_broker.steering import DRAIN_S, RETRY_S, SETTLE_S
from tests.broker.bench import START, Bench, Sent, copy, spec
from tests.broker.test_commands import TOKEN, order, ordered


def ready(bench: Bench, worker: str, **facts: int) -> None:
    bench.reports(worker, Copy("m", "1", "ready", "", dict(facts)))


def asleep() -> Bench:
    """A model that may have no copies, and has none: nobody has asked for it for long."""
    bench = Bench(spec(copies_min=0, copies_max=2))
    bench.host("a")
    orders = bench.live(310, ["a"]).orders
    assert orders == [("a", "unload", "m")]
    bench.reports("a", copy(state="gone"))
    bench.wake()
    return bench


def test_a_model_that_may_have_no_copies_loses_them_when_nobody_asks() -> None:
    bench = asleep()
    [model] = ordered_models(bench)
    assert (model["state"], model["wanted"], model["error"]) == ("asleep", 0, "")
    assert "no request" in model["scaling"]


def ordered_models(bench: Bench) -> list[dict[str, object]]:
    models: list[dict[str, object]] = bench.scheduler._state.document(bench.now)["models"]
    return models


def test_the_first_request_waits_for_the_load_and_its_answer_says_so() -> None:
    bench = asleep()
    bench.ask(1, timeout_s=30.0)
    assert bench.wake().orders == [("a", "load", "m")]
    assert bench.live(2.0, ["a"]).codes() == {}, "it waits, and is not refused"
    ready(bench, "a")
    [(worker, batch)] = bench.wake().batches
    bench.answers(worker, batch)
    reply = bench.wake().replies()[1]
    assert 1990 <= reply.meta["loading_ms"] <= 2200
    bench.ask(2)
    [(worker, batch)] = bench.wake().batches
    bench.answers(worker, batch)
    assert "loading_ms" not in bench.wake().replies()[2].meta


def test_a_request_whose_time_runs_out_during_the_load_says_why() -> None:
    bench = asleep()
    bench.ask(1, timeout_s=1.0)
    sent = bench.live(1.5, ["a"])
    assert "no copy of model 'm' was ready yet" in str(sent.replies()[1].content)


def test_more_copies_come_when_requests_wait_and_go_when_they_are_idle() -> None:
    bench = Bench(spec(copies_min=1, copies_max=2))
    bench.host("a")
    bench.join("b")
    bench.wake()
    bench.ask(*range(1, 9), timeout_s=100.0)
    orders = bench.live(4.0, ["a", "b"]).orders
    assert orders == [("b", "load", "m")]
    ready(bench, "b")
    for _ in range(200):
        sent = bench.live(0.1, ["a", "b"])
        for worker, batch in sent.batches:
            bench.answers(worker, batch)
        for worker in bench.scheduler.roster:
            if worker.first:
                bench.answers(worker.name, Taken(worker.first.id, len(worker.first.requests)))
        if not bench.scheduler.ledger.callers:
            break
    orders = bench.live(200.0, ["a", "b"]).orders
    assert [kind for _, kind, _ in orders] == ["unload"]


class Taken:
    """A batch that a worker has, to be answered."""

    def __init__(self, id: int, count: int) -> None:
        self.id = id
        self.requests = [type("Rider", (), {"tensors": b""})] * count


def test_an_operators_bounds_hold_at_once() -> None:
    bench = Bench(spec(copies_min=1, copies_max=4), token=TOKEN)
    for name in "abc":
        bench.join(name)
    bench.wake()
    order(bench, "scale", model="m", min=3, max=4)
    assert len(bench.wake().orders) == 2


def test_a_copy_that_failed_is_tried_again_later_and_later() -> None:
    bench = Bench()
    bench.join("a")
    bench.wake()
    tried = []
    for _ in range(3):
        bench.reports("a", copy(state="failed", detail="no memory"))
        start = bench.now
        while not (sent := bench.live(1.0, ["a"])).orders:
            assert bench.now < start + 1000
        tried.append(bench.now - start)
        assert sent.orders == [("a", "unload", "m")]
        bench.reports("a", copy(state="gone"))
        assert bench.wake().orders == [("a", "load", "m")]
        bench.reports("a", copy(state="loading"))
    assert [round(waited / RETRY_S) for waited in tried] == [1, 2, 4]


def test_what_a_copy_needs_is_declared_or_measured() -> None:
    bench = Bench(spec("m"), spec("n", memory_mb=3))
    bench.join("a")
    bench.wake()
    bench.reports("a", Copy("m", "1", "ready", "", {"memory_bytes": 5000}))
    bench.reports("a", Copy("n", "1", "ready", "", {"memory_bytes": 5000}))
    assert [m["memory_bytes"] for m in ordered_models(bench)] == [5000, 3 << 20]


def test_a_worker_that_drains_goes_in_the_end_even_if_a_copy_is_never_ready() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    bench.join("b")
    bench.wake()
    ordered(bench, "drain", worker="a")
    assert bench.live(DRAIN_S - 2, ["a", "b"]).dismissed == []
    dismissed = bench.live(5, ["a", "b"]).dismissed
    assert dismissed[0] == ("a", "drained", 1)


def test_a_copy_that_was_let_go_is_loaded_again_when_it_is_gone_and_once() -> None:
    bench = Bench(token=TOKEN)
    bench.host("a")
    ordered(bench, "scale", model="m", min=0)
    ordered(bench, "scale", model="m", min=1)
    assert bench.wake().orders == [], "it is not gone yet"
    bench.reports("a", copy(state="gone"))
    assert bench.wake().orders == [("a", "load", "m")]
    bench.reports("a", copy(state="loading"))
    [model] = ordered_models(bench)
    assert model["state"] == "loading"
    ready(bench, "a")
    bench.ask(1)
    assert bench.wake().batches


def lose(bench: Bench, worker: str, reason: str = "its process was killed by SIGSEGV") -> Sent:
    bench.handle(WorkerGone(worker.encode(), reason))
    return bench.wake()


def test_a_load_that_takes_two_workers_is_not_tried_in_a_third_and_who_waits_learns_why() -> None:
    bench = Bench()
    bench.join("a")
    bench.join("b")
    bench.join("c")
    assert bench.wake().orders == [("a", "load", "m")]
    assert lose(bench, "a").orders == [("b", "load", "m")]
    bench.ask(1)
    sent = lose(bench, "b")
    assert sent.orders == []
    assert sent.replies()[1].code == NotReady.code
    assert "2 workers were lost while they loaded it" in str(sent.replies()[1].content)
    [model] = ordered_models(bench)
    assert model["state"] == "failed" and "b: its process was killed by SIGSEGV" in str(model["error"])
    assert bench.live(RETRY_S - 2, ["c"]).orders == []
    assert bench.live(4, ["c"]).orders == [("c", "load", "m")]


def test_a_version_under_suspicion_is_tried_in_one_worker_at_a_time_and_then_everywhere() -> None:
    bench = Bench(spec(copies=3))
    for name in "ab":
        bench.join(name)
    bench.wake()
    lose(bench, "a")
    lose(bench, "b")
    for name in "cde":
        bench.join(name)
    assert bench.live(RETRY_S + 2, "cde").orders == [("c", "load", "m")]
    ready(bench, "c")
    assert sorted(bench.wake().orders) == [("d", "load", "m"), ("e", "load", "m")]


def test_a_process_that_ends_just_after_its_copy_failed_is_blamed_on_the_load() -> None:
    bench = Bench()
    for name in "abc":
        bench.join(name)
    bench.wake()
    for name in "ab":
        bench.reports(name, copy(state="failed", detail="CUDA error: an illegal memory access"))
        bench.wake()
        lose(bench, name, "its process ended with exit code 71 (DEVICE_FAULT)")
    [model] = ordered_models(bench)
    assert "2 workers were lost" in str(model["error"])


def test_a_worker_that_is_lost_with_a_batch_does_not_speak_against_what_it_was_to_load_next() -> None:
    bench = Bench(token=TOKEN)
    for name in "abc":
        bench.host(name, "m") if name == "a" else bench.join(name)
    bench.ask(1)
    bench.wake()
    bench.reports("a", Copy("n", "1", "loading", "", {}))
    lose(bench, "a")
    assert not bench.scheduler._steering._casualties._losses


def test_registering_a_version_that_was_held_back_lets_it_be_tried_at_once() -> None:
    bench = Bench(token=TOKEN)
    for name in "abc":
        bench.join(name)
    bench.wake()
    lose(bench, "a")
    lose(bench, "b")
    order(bench, "register", path="m/1")
    bench.wake()
    bench.handle(StoreRead([spec()], {}))
    assert bench.wake().orders == [("c", "load", "m")]


def test_what_a_held_version_has_ready_stays() -> None:
    bench = Bench(spec(copies=3))
    for name in "abc":
        bench.join(name)
    bench.wake()
    ready(bench, "a")
    lose(bench, "b")
    lose(bench, "c")
    bench.join("d")
    assert bench.live(5.0, "ad").orders == []
    bench.ask(1)
    assert [worker for worker, _ in bench.wake().batches] == ["a"]


def test_a_broker_that_was_just_started_lets_workers_say_first_what_they_have() -> None:
    bench = Bench(spec("m"), spec("n"), started=START)
    bench.join("a", copy("m"))
    assert bench.wake().orders == []
    bench.join("b", copy("n"))
    assert bench.live(3.0, "ab").orders == []
    bench = Bench(spec("m"), spec("n"), started=START)
    bench.join("a", copy("m"))
    assert bench.live(SETTLE_S + 0.2, "a").orders == [("a", "load", "n")]


def test_what_a_worker_has_left_serves_on_while_something_else_is_unloaded() -> None:
    bench = Bench(spec("m", batch_size_max=1), spec("n"), token=TOKEN)
    bench.host("a", "m", "n")
    bench.ask(1, 2, 3)
    sent = bench.wake()
    ordered(bench, "scale", model="n", min=0)
    for _ in range(3):
        for worker, batch in sent.batches:
            bench.answers(worker, batch)
        sent = bench.wake()
    assert not bench.scheduler.ledger.callers, "what waited for m had no turn any more"


def test_a_version_that_may_have_copies_again_is_awake_for_the_first_request() -> None:
    bench = Bench(token=TOKEN)
    bench.join("a")
    ordered(bench, "scale", model="m", min=0)
    bench.live(1.0, ["a"])
    bench.reports("a", copy(state="gone"))
    ordered(bench, "scale", model="m", min=0, max=2)
    bench.ask(1)
    assert bench.wake().orders == [("a", "load", "m")]


def test_a_worker_whose_runner_hangs_is_lost_although_its_load_was_taken_back() -> None:
    bench = Bench(token=TOKEN, load_timeout_s=20.0)
    bench.join("a")
    bench.wake()
    ordered(bench, "scale", model="m", min=0)
    assert bench.live(19.0, ["a"]).dismissed == []
    assert bench.live(2.0, ["a"]).dismissed[0] == ("a", "model not unloaded in 20 s", 1)


def test_loads_that_go_as_they_should_make_no_new_plan() -> None:
    bench = Bench()
    bench.join("a")
    bench.wake()
    steering = bench.scheduler._steering
    for state in ("loading", "ready"):
        bench.reports("a", copy(state=state))
        assert not steering.plan_is_old
    bench.reports("a", copy(state="failed"))
    assert steering.plan_is_old
