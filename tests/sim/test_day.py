"""A day's worth of crashes in the false world. It takes many seconds, so it is not one of the pure tests."""

from __future__ import annotations

import random

from headway_broker.scheduler import BrokerTimes
from tests.sim.test_simulation import TIMEOUTS_S, models
from tests.sim.world import Nature, WorkerNode, World


def test_after_a_days_crashes_of_callers_workers_and_brokers_no_slot_is_lost_or_was_used_twice() -> None:
    """As many as one a minute makes in a day, in three virtual hours; most requests are in slots."""
    end_s, rng = 3 * 3600.0, random.Random(7)
    times = BrokerTimes(heartbeat_s=2.0, silence_s=6.0)
    world = World(7, models(rng), Nature(latency_s=(0.0001, 0.01), batch_s=(0.01, 0.2)), times, 0.9, 120.0)
    world.check_each = 10  # every turn is what the other simulations check
    world.add_workers(3)
    world.add_callers(3)
    faults = [world.crash, world.crash, WorkerNode.hang, WorkerNode.freeze, WorkerNode.freeze, world.drain]
    id, time = 0, 10.0
    while (time := time + rng.uniform(3.0, 12.0)) < end_s:
        for _ in range(12):
            id += 1
            caller, kind = rng.choice(world.callers), rng.random()
            at, ask = time + rng.uniform(0, 1.0), (id, rng.choice(world.specs).name, rng.choice(TIMEOUTS_S))
            world.plan(at, lambda c=caller, ask=ask, id=id: c.ask(*ask, b"request %d" % id))
            if kind > 0.9:
                world.plan(at + rng.uniform(0, 0.3), lambda c=caller, id=id: c.abandon(id))
        victim = rng.choice([*world.workers * 4, *world.callers * 2, world.broker])
        fault = rng.choice(faults) if isinstance(victim, WorkerNode) else world.crash
        world.plan(time + rng.uniform(0, 1.0), lambda v=victim, fault=fault: v.alive and fault(v))
    world.start()
    world.settle_down(end_s + 60.0)
    assert world.judge.released > 5_000 and world.judge.shared > 1_000
