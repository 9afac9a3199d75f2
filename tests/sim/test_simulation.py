"""The contract of the design, in a false world, over many seeds."""

from __future__ import annotations

import random
from functools import partial

import pytest

from headway.messages import OK, Reply
from headway.models import ModelSpec
from headway_broker.scheduler import BrokerTimes
from tests.sim.world import Nature, WorkerNode, World

SEEDS = range(120)
PIECES_SEEDS = range(1000, 1060)
ABREAST_SEEDS = range(2000, 2060)
LOAD_S = 1.5
TIMEOUTS_S = (0.2, 1.0, 2.5)


def spec(name: str, **keys: object) -> ModelSpec:
    return ModelSpec(name, "1", "/models", "python", **keys)  # type: ignore[arg-type]


def models(rng: random.Random) -> list[ModelSpec]:
    return [
        spec(
            f"m{i}",
            copies=rng.randint(1, 3),
            batch_size_max=rng.choice((1, 4, 16)),
            batch_delay_ms=rng.choice((0.0, 0.0, 5.0)),
            batch_clock="worker" if i == 1 else "arrival",
            queue_size_max=rng.choice((8, 200)),
            response_timeout_s=rng.choice((0.5, 3.0)),
            slo_ms=rng.choice((0.0, 0.0, 50.0, 500.0)),
            share=rng.choice((1.0, 1.0, 3.0)),
            idempotent=i != 2,
        )
        for i in range(3)
    ]


def rough_world(seed: int) -> World:
    rng = random.Random(seed)
    nature = Nature(
        latency_s=(0.0001, rng.choice((0.001, 0.05))),
        batch_s=(0.001, rng.choice((0.01, 0.2))),
        restart_s=(0.1, rng.choice((0.5, 3.0))),
    )
    world = World(seed, models(rng), nature, BrokerTimes(heartbeat_s=0.4, silence_s=1.0, load_timeout_s=5.0))
    world.add_workers(rng.randint(1, 4))
    world.add_callers(rng.randint(1, 4))
    world.sharing = rng.choice((0.0, 0.6, 1.0))
    world.streaming = rng.choice((0.0, 0.3, 0.8))
    return world


def make_load(world: World, rate: float, start: float = 0.0) -> None:
    """Requests at random times; one in twenty is given up, one in two hundred kills its worker."""
    rng, id, time = world.random, 0, start
    while (time := time + rng.expovariate(rate)) < start + LOAD_S:
        id += 1
        caller, kind = rng.choice(world.callers), rng.random()
        tensors = b"%s %d" % (b"poison" if kind < 0.005 else b"request", id)
        ask = (id, rng.choice(world.specs).name, rng.choice(TIMEOUTS_S), tensors)
        world.plan(time, lambda caller=caller, ask=ask: caller.ask(*ask))
        if kind > 0.95:
            given_up = time + rng.uniform(0, 0.3)
            world.plan(given_up, lambda caller=caller, id=id: caller.abandon(id))


def make_faults(world: World, start: float = 0.0) -> None:
    """Anybody may be killed at any time; workers may hang, stand still, or be told to go."""
    rng, times = world.random, (start, start + LOAD_S)
    faults = [world.crash] * 3 + [WorkerNode.hang, WorkerNode.freeze, WorkerNode.freeze, world.drain]
    for _ in range(rng.randint(0, 12)):
        worker, fault = rng.choice(world.workers), rng.choice(faults)
        world.plan(rng.uniform(*times), lambda worker=worker, fault=fault: fault(worker))
    for _ in range(rng.choice((0, 0, 1, 2))):
        world.plan(rng.uniform(*times), lambda: world.crash(world.broker))
    for _ in range(rng.choice((0, 1, 2))):
        caller = rng.choice(world.callers)
        world.plan(rng.uniform(*times), lambda caller=caller: world.crash(caller))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_gets_one_outcome_in_time_whatever_dies(seed: int) -> None:
    world = rough_world(seed)
    make_load(world, rate=random.Random(seed + 1).choice((10, 40)))
    make_faults(world)
    world.start()
    world.settle_down(LOAD_S + max(TIMEOUTS_S) + 4.0)
    lives = world.broker.life  # a caller sends again what a broker's death left open
    for tensors, runs in world.judge.runs.items():
        assert runs <= 2 * lives, f"{tensors!r} ran {runs} times under {lives} brokers"


@pytest.mark.parametrize("seed", PIECES_SEEDS)
def test_no_reply_in_pieces_is_made_of_two_whatever_dies(seed: int) -> None:
    world = rough_world(seed)
    world.streaming, world.nature.batch_s, world.nature.restart_s = 0.9, (0.01, 0.3), (0.1, 0.3)
    world.add_workers(2)
    make_load(world, rate=100, start=4.0)  # models are loaded by then
    make_faults(world, start=4.0)
    world.start()
    world.settle_down(4.0 + LOAD_S + max(TIMEOUTS_S) + 4.0)
    assert world.judge.pieces


@pytest.mark.parametrize("seed", ABREAST_SEEDS)
def test_batches_that_run_beside_one_another_keep_the_same_promises(seed: int) -> None:
    world, rng = rough_world(seed), random.Random(seed)
    keys = {"copies": 2, "response_timeout_s": 3.0, "queue_size_max": rng.choice((8, 200))}
    world.specs[0] = spec("m0", batch_size_max=rng.choice((1, 4)), continuous=True, **keys)
    world.specs[1] = spec("m1", batch_size_max=2, in_flight_max=rng.choice((1, 5)), **keys)
    world.nature.batch_s, world.streaming = (0.01, rng.choice((0.1, 0.5))), 0.5
    world.add_workers(1)
    make_load(world, rate=60, start=2.0)
    make_faults(world, start=2.0)
    world.start()
    world.settle_down(2.0 + LOAD_S + max(TIMEOUTS_S) + 4.0)


def test_what_nobody_waits_for_makes_room_in_the_running_batch() -> None:
    world = World(1, [spec("m", batch_size_max=2, continuous=True)], Nature(batch_s=(5.0, 5.0)))
    world.add_workers(1)
    world.add_callers(1)
    world.start()
    world.clock.run(2.0)
    for id in (1, 2, 3):
        world.callers[0].ask(id, "m", 30.0, b"request %d" % id)
    world.clock.run(2.5)
    world.callers[0].abandon(1)
    world.clock.run(7.6)
    assert world.dropped == 1
    assert len(world.judge.outcomes) == 2, "the third ran beside the second"


def calm_world(workers: int = 2, **keys: object) -> World:
    world = World(1, [spec("m", copies=workers, **keys)], times=BrokerTimes(silence_s=1.0))
    world.add_workers(workers)
    world.add_callers(1)
    world.start()
    world.clock.run(2.0)
    return world


def ask_steadily(world: World, rate: float, seconds: float) -> None:
    count = int(rate * seconds)
    for id in range(1, count + 1):
        time = world.now + id / rate
        world.plan(time, lambda id=id: world.callers[0].ask(id, "m", 10.0, b"request %d" % id))


def test_one_crash_of_one_worker_costs_latency_and_no_error() -> None:
    world = calm_world(batch_size_max=8)
    ask_steadily(world, rate=200, seconds=4)
    world.plan(4.0, lambda: world.crash(world.workers[0]))
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 800
    assert not world.judge.errors


def test_a_crash_of_the_only_worker_costs_latency_and_no_error() -> None:
    world = calm_world(workers=1, batch_size_max=8)
    ask_steadily(world, rate=50, seconds=4)
    world.plan(4.0, lambda: world.crash(world.workers[0]))
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 200
    assert not world.judge.errors


def test_a_crash_of_the_broker_costs_latency_and_no_error() -> None:
    world = calm_world(batch_size_max=8)
    ask_steadily(world, rate=200, seconds=4)
    world.plan(4.0, lambda: world.crash(world.broker))
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 800
    assert not world.judge.errors


def test_what_a_caller_asks_after_the_broker_was_started_anew_is_run_once() -> None:
    """It did not notice: nothing was open. What it asks first is answered at once, and it learns of the new
    broker only then."""
    world = calm_world(batch_size_max=8)
    world.nature.batch_s = (0.0001, 0.0002)
    for id in range(100):
        start = world.now + 10 * id
        world.plan(start, lambda: world.crash(world.broker))
        for place in range(3):
            ask = partial(world.callers[0].ask, 3 * id + place, "m", 4.0, b"%d/%d" % (id, place))
            world.plan(start + 5 + 0.0005 * place, ask)
    world.settle_down(1100.0)
    assert len(world.judge.outcomes) == 300
    assert not world.judge.errors
    assert set(world.judge.runs.values()) == {1}


def test_a_worker_told_to_go_costs_nothing() -> None:
    world = calm_world(batch_size_max=8)
    ask_steadily(world, rate=200, seconds=4)
    world.plan(4.0, lambda: world.drain(world.workers[0]))
    world.settle_down(30.0)
    assert not world.judge.errors
    assert set(world.judge.runs.values()) == {1}


def test_replies_in_pieces_are_whole_and_in_order() -> None:
    world = calm_world(batch_size_max=8)
    world.streaming = 0.5
    ask_steadily(world, rate=200, seconds=4)
    world.settle_down(30.0)
    assert not world.judge.errors
    assert sum(map(len, world.judge.pieces.values())) > 500


@pytest.mark.parametrize("victim", ["worker", "broker"])
def test_a_reply_that_has_begun_when_its_worker_or_the_broker_dies_is_not_made_again(victim: str) -> None:
    world = calm_world(workers=1, batch_size_max=8)
    world.streaming, world.nature.batch_s = 1.0, (1.0, 1.0)
    for id in range(1, 9):
        world.callers[0].ask(id, "m", 20.0, b"request %d" % id)
    crashes = world.workers[0] if victim == "worker" else world.broker
    world.plan(world.now + 0.6, lambda: world.crash(crashes))
    world.settle_down(60.0)
    begun = {who for who in world.judge.pieces if not isinstance(world.judge.outcomes[who], Reply)}
    assert len(begun) == world.judge.errors["WorkerLost"] > 2
    assert set(world.judge.errors) == {"WorkerLost"}, "the others were run again"
    assert {runs for tensors, runs in world.judge.runs.items()} == {1, 2}


def test_a_poisoned_request_takes_two_workers_and_nobody_elses_request() -> None:
    world = calm_world(workers=3, batch_size_max=8)
    ask_steadily(world, rate=200, seconds=4)
    world.plan(4.0, lambda: world.callers[0].ask(99_999, "m", 20.0, b"poison"))
    world.settle_down(40.0)
    assert world.judge.errors == {"WorkerLost": 1}
    assert world.judge.runs[b"poison"] == 2


def test_a_model_that_is_not_idempotent_is_never_run_twice() -> None:
    world = calm_world(batch_size_max=8, idempotent=False)
    ask_steadily(world, rate=200, seconds=4)
    world.plan(4.0, lambda: world.crash(world.workers[0]))
    world.plan(5.0, lambda: world.crash(world.broker))
    world.settle_down(30.0)
    assert set(world.judge.runs.values()) == {1}
    assert set(world.judge.errors) <= {"WorkerLost"}


def test_overload_is_answered_at_once_and_not_queued() -> None:
    world = calm_world(workers=1, batch_size_max=1, queue_size_max=20)
    world.nature.batch_s = (0.1, 0.1)
    world.sharing = 0.0  # requests with slots wait for the broker's nonce, which nobody asked for yet
    start = world.now
    for id in range(1, 201):
        world.callers[0].ask(id, "m", 10.0, b"request %d" % id)
    world.clock.run(start + 0.05)
    assert world.judge.errors == {"QueueFull": 179}, "twenty wait, and one is taken at once"
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 200


def test_a_worker_that_hangs_is_lost_when_its_lease_ends_and_takes_its_batch_along_and_no_other() -> None:
    world = calm_world(workers=1, batch_size_max=2, response_timeout_s=1.0)
    world.workers[0].hang()
    for id in range(1, 9):
        world.callers[0].ask(id, "m", 10.0, b"request %d" % id)
    world.settle_down(30.0)
    assert world.judge.errors == {"WorkerLost": 2}, "those of the first batch; the others were run again"
    assert len(world.judge.outcomes) == 8
    assert world.workers[0].life == 2


def test_batches_fill_under_load_without_any_delay() -> None:
    world = calm_world(workers=1, batch_size_max=32)
    world.nature.batch_s = (0.05, 0.05)
    ask_steadily(world, rate=600, seconds=3)
    world.settle_down(30.0)
    rows = world.broker.scheduler.stats[("m", "1")].batch_rows
    mean = 1800 / sum(rows.counts)
    assert mean > 24, f"a batch held {mean:.1f} of 32"


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.002, 0.003, 0.005, 0.05])
def test_a_broker_that_dies_at_a_callers_first_request_costs_no_error(after_s: float) -> None:
    world = calm_world()
    world.callers[0].ask(1, "m", 5.0, b"request 1")
    world.clock.at(world.now + after_s, lambda: world.crash(world.broker))
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 1
    assert not world.judge.errors


def test_what_a_worker_ran_for_an_old_broker_answers_nobody_at_the_new_one() -> None:
    world = calm_world(workers=1)
    world.nature.batch_s, world.nature.restart_s = (1.5, 1.5), (0.2, 0.2)
    caller, start = world.callers[0], world.now
    world.plan(start, lambda: caller.ask(1, "m", 10.0, b"old"))
    world.plan(start + 0.1, lambda: world.crash(world.broker))
    world.plan(start + 0.2, lambda: caller.abandon(1))
    world.plan(start + 0.3, lambda: caller.ask(2, "m", 10.0, b"new"))
    world.settle_down(30.0)
    assert len(world.judge.outcomes) == 1


def test_a_quiet_model_is_served_beside_one_that_always_has_full_batches() -> None:
    world = World(1, [spec("m", batch_size_max=4, queue_size_max=40), spec("quiet", batch_size_max=4)])
    world.nature.batch_s = (0.05, 0.05)
    world.add_workers(1)
    world.add_callers(1)
    world.start()
    world.clock.run(2.0)
    ask_steadily(world, rate=150, seconds=3)  # the worker can do 80 a second
    world.plan(3.5, lambda: world.callers[0].ask(99_999, "quiet", 1.2, b"quiet"))
    world.settle_down(30.0)
    assert world.judge.outcomes[(world.callers[0].identity, 99_999)].code == OK


def test_a_request_that_came_back_is_served_while_the_other_worker_always_has_full_batches() -> None:
    world = calm_world(workers=2, batch_size_max=4, queue_size_max=100)
    world.nature.batch_s, world.nature.restart_s = (0.05, 0.05), (20.0, 20.0)
    ask_steadily(world, rate=150, seconds=4)
    world.plan(3.5, lambda: world.crash(world.workers[0]))
    world.clock.run(5.5)
    queue = world.broker.scheduler.queues[("m", "1")]
    assert queue.rows == queue.rows_together, "what came back has not waited for the load to end"
    world.settle_down(30.0)
    assert set(world.judge.errors) <= {"QueueFull"}
