"""Sequences in a false world: whatever dies, no answer is made without the state of the answers before it."""

from __future__ import annotations

import random

import pytest

from headway.steps import Step
from headway_broker.scheduler import BrokerTimes
from tests.sim.test_simulation import LOAD_S, TIMEOUTS_S, make_faults, spec
from tests.sim.world import Nature, World

SEEDS = range(2000, 2060)


def world_of(seed: int, workers: int, rough: bool) -> World:
    rng = random.Random(seed)
    nature = Nature(
        latency_s=(0.0001, rng.choice((0.001, 0.05)) if rough else 0.001),
        batch_s=(0.001, rng.choice((0.01, 0.2)) if rough else 0.01),
        restart_s=(0.1, rng.choice((0.5, 3.0))),
    )
    idle_ms = rng.choice((200.0, 5000.0)) if rough else 60_000.0
    timeout_ms = rng.choice((0.0, 0.0, 700.0)) if rough else 0.0
    lasts = idle_ms > 1000.0 and not timeout_ms  # what expires may begin again without a start
    steps = spec(
        "steps",
        copies=workers,
        batch_size_max=rng.choice((1, 4, 16)),
        batch_delay_ms=rng.choice((0.0, 5.0)),
        batch_clock=rng.choice(("worker", "arrival")),
        sequences_max=rng.choice((4, 100)) if rough else 100,
        sequence_queue_max=rng.choice((1, 8)) if rough else 100,
        sequence_idle_ms=idle_ms,
        sequence_timeout_ms=timeout_ms,
        sequence_opens=rng.choice(("any", "start")) if lasts else "start",
        response_timeout_s=rng.choice((0.5, 3.0)),
    )
    times = BrokerTimes(heartbeat_s=0.4, silence_s=1.0, load_timeout_s=5.0)
    plain = spec("plain", copies=rng.randint(1, 2), batch_size_max=4, response_timeout_s=3.0)
    world = World(seed, [steps, plain], nature, times)
    world.add_workers(workers)
    world.add_callers(rng.randint(1, 3))
    world.sharing = rng.choice((0.0, 0.6, 1.0))
    world.streaming = rng.choice((0.0, 0.3))
    return world


def make_steps(world: World, rate: float, start: float, seconds: float, withdrawn: float) -> None:
    """Steps of a few sequences each, some of them starts and ends, beside requests for another model."""
    rng, id, time = world.random, 0, start
    begun: set[tuple[str, str]] = set()
    while (time := time + rng.expovariate(rate)) < start + seconds:
        id += 1
        caller, name = rng.choice(world.callers), rng.choice("abc")
        timeout_s = rng.choice(TIMEOUTS_S) if withdrawn else 30.0
        if rng.random() < 0.3:
            ask = (id, "plain", timeout_s, b"request %d" % id)
            world.plan(time, lambda caller=caller, ask=ask: caller.ask(*ask))
        else:
            starts = (caller.name, name) not in begun or rng.random() < 0.15
            ends = rng.random() < 0.1
            (begun.discard if ends else begun.add)((caller.name, name))
            step = Step(name, starts, ends)
            world.plan(
                time, lambda caller=caller, id=id, step=step, t=timeout_s: caller.step(id, "steps", t, step)
            )
        if rng.random() < withdrawn:
            world.plan(time + rng.uniform(0, 0.3), lambda caller=caller, id=id: caller.abandon(id))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_answer_is_made_without_what_was_answered_before_it(seed: int) -> None:
    rng = random.Random(seed + 1)
    world = world_of(seed, workers=rng.randint(1, 4), rough=True)
    make_steps(world, rng.choice((30, 120)), start=1.0, seconds=LOAD_S, withdrawn=0.05)
    make_faults(world, start=1.0)
    world.start()
    world.settle_down(1.0 + LOAD_S + max(TIMEOUTS_S) + 4.0)
    steps = [runs for tensors, runs in world.judge.runs.items() if tensors.startswith(b"step")]
    assert max(steps, default=1) == 1, "a step is never run twice"


def test_the_worlds_are_no_worlds_without_answers() -> None:
    answered = 0
    for seed in SEEDS[:6]:
        world = world_of(seed, workers=3, rough=True)
        make_steps(world, 60, start=2.0, seconds=LOAD_S, withdrawn=0.05)
        world.plan(2.5, lambda world=world: world.crash(world.workers[0]))
        world.start()
        world.settle_down(2.0 + LOAD_S + max(TIMEOUTS_S) + 4.0)
        answered += sum(map(len, world.judge.seen.values()))
        assert world.judge.errors, "the crash was noticed"
    assert answered > 100


def test_where_nothing_dies_every_step_is_answered_in_its_turn() -> None:
    world = world_of(1, workers=3, rough=False)
    world.start()
    world.clock.run(3.0)
    make_steps(world, 100, start=3.0, seconds=4.0, withdrawn=0.0)
    world.settle_down(40.0)
    assert not world.judge.errors
    assert sum(map(len, world.judge.seen.values())) > 200


def test_a_worker_told_to_go_costs_its_own_sequences_and_no_others() -> None:
    world = world_of(1, workers=3, rough=False)
    world.start()
    world.clock.run(3.0)
    make_steps(world, 100, start=3.0, seconds=2.0, withdrawn=0.0)
    world.plan(4.0, lambda: world.drain(world.workers[0]))
    world.settle_down(40.0)
    assert set(world.judge.errors) == {"NoSequence"}
