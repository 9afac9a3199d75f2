"""An operator at work in the false world: versions, splits, scaling, drains and agents, among crashes.

What is promised: what `test_simulation` promises, whatever is ordered; and once nobody orders or breaks
anything any more, what is comes to be what should be, and stays so.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from headway.models import ModelSpec
from headway_broker.casualties import LOST_MAX, RETRY_S
from headway_broker.scheduler import BrokerTimes
from tests.sim.operators import AgentNode, OperatorNode, drain_someone
from tests.sim.world import Nature, WorkerNode, World

SEEDS = range(30)
LOAD_S = 4.0
CALM_S = 30.0  # in which all becomes as it should be; a lost worker is missed after silence_s
QUIET_S = 8.0  # in which nothing is ordered any more
TIMEOUTS_S = (0.3, 1.0, 3.0)


def spec(name: str, version: str = "1", **keys: Any) -> ModelSpec:
    return ModelSpec(name, version, f"/models/{name}/{version}", "python", **keys)


def models(rng: random.Random) -> list[ModelSpec]:
    return [
        spec(
            f"m{i}",
            copies=rng.randint(1, 2),
            batch_size_max=rng.choice((1, 8)),
            response_timeout_s=rng.choice((0.5, 3.0)),
            **rng.choice(({}, {"copies_min": 0, "copies_max": 3}, {"copies_min": 1, "copies_max": 3})),
        )
        for i in range(3)
    ]


class Operated:
    """A world with an operator, hosts with agents, and workers without."""

    def __init__(self, seed: int, specs: list[ModelSpec], nature: Nature | None = None) -> None:
        times = BrokerTimes(heartbeat_s=0.4, silence_s=1.0, load_timeout_s=5.0)
        self.world = World(seed, specs, nature or Nature(), times)
        self.operator = OperatorNode(self.world)
        self.agents: list[AgentNode] = []
        self.world.others.append(self.operator)

    def add_agent(self, host: str, most: int, wanted: int) -> AgentNode:
        agent = AgentNode(self.world, host, most, wanted)
        self.agents.append(agent)
        self.world.others.append(agent)
        return agent

    @property
    def broker(self) -> Any:
        return self.world.broker.scheduler

    def deploy(self, name: str, version: str, **keys: Any) -> None:
        """A version is put into the store."""
        if any(s.key == (name, version) for s in self.world.specs):
            return
        like = next(s for s in self.world.specs if s.name == name)
        folder = f"/models/{name}/{version}"
        self.world.specs = [*self.world.specs, replace(like, version=version, folder=folder, **keys)]

    def remove(self, name: str) -> None:
        """Its oldest version is taken out of the store, if there is another."""
        mine = [s for s in self.world.specs if s.name == name]
        if len(mine) > 1:
            self.world.specs = [s for s in self.world.specs if s is not mine[0]]

    def settle(self, until: float) -> None:
        """Nobody orders or breaks anything any more."""
        self.world.settle_down(until)
        self.world.clock.run(max(self.world.now, until) + CALM_S)
        self.check_calm()
        before = len(self.world.broker.orders)
        self.world.clock.run(self.world.now + QUIET_S)
        ordered = self.world.broker.orders[before:]
        assert not ordered, f"orders without end: {ordered[:5]}"

    def check_calm(self) -> None:
        """What is, is what should be."""
        broker, board = self.broker, self.broker.board
        assert not self.operator.unanswered(), f"no answer: {self.operator.unanswered()[:3]}"
        assert not board.retiring, f"these retire for ever: {board.retiring}"
        assert not any(w.draining or w.leaving or w.unloading for w in broker.roster), "a worker never goes"
        living = {worker.name for worker in self.world.workers if worker.alive}
        assert {worker.name for worker in broker.roster} == living
        for key in broker.catalog.specs:
            if key not in board.held and key not in self.world.broken:
                wanted = broker._steering._copies(key)
                assert board.ready(key) == min(wanted, len(living)), f"{key}: {board.ready(key)} of {wanted}"
        none = {key for key in broker.catalog.specs if not broker.catalog.limits(key)[1] or not living}
        hopeless = {key[0] for key in {*board.held, *self.world.broken, *none}}
        assert broker.catalog.moving <= hopeless, f"traffic stays: {broker.catalog.moving}"
        for worker in self.world.workers:
            if worker.alive and not worker.hung:
                ready = {
                    k for k, c in broker.roster.workers[worker.identity].copies.items() if c.state == "ready"
                }
                assert ready == worker.loaded, f"{worker.name} has {worker.loaded}, not {ready}"
        for agent in self.agents:
            there = board.agents.of(agent.host)
            assert there, f"{agent.host} has lost its agent"
            wanted, count = broker._hosts.wanted(there), len(agent.workers)
            more = agent.host not in broker.catalog.desired.hosts  # for versions that find no place
            assert count == wanted or (more and count > wanted), (
                f"{count} of {wanted} workers on {agent.host}"
            )


def rough(seed: int) -> Operated:
    rng = random.Random(seed)
    nature = Nature(
        latency_s=(0.0001, rng.choice((0.001, 0.03))),
        batch_s=(0.001, rng.choice((0.01, 0.1))),
        restart_s=(0.1, rng.choice((0.5, 2.0))),
    )
    made = Operated(seed, models(rng), nature)
    made.world.add_workers(rng.randint(0, 3))
    made.world.add_callers(rng.randint(1, 3))
    made.world.sharing = rng.choice((0.0, 0.6))
    for host in "ab"[: rng.randint(0, 2)]:
        most = rng.randint(1, 4)
        made.add_agent(host, most, rng.randint(1, most))
    if not made.world.workers and not made.agents:
        made.world.add_workers(2)
    return made


def make_load(made: Operated, rate: float) -> None:
    world = made.world
    rng, id, time = world.random, 0, 0.0
    while (time := time + rng.expovariate(rate)) < LOAD_S:
        id += 1
        caller, version = rng.choice(world.callers), rng.choice(("", "", "", "1", "2"))
        ask = (id, f"m{rng.randrange(3)}", rng.choice(TIMEOUTS_S), b"request %d" % id, 0, version)
        world.plan(time, lambda caller=caller, ask=ask: caller.ask(*ask))


def make_orders(made: Operated) -> None:
    """What an operator does, in any order."""
    world, operator, rng = made.world, made.operator, made.world.random
    for _ in range(rng.randint(3, 25)):
        time, name = rng.uniform(0, LOAD_S), f"m{rng.randrange(3)}"
        version, other = rng.choice("123"), rng.choice("123")
        wait = {"wait": rng.choice((0, 1)), "timeout_ms": rng.choice((500, 5000))}
        low, high = sorted((rng.randint(0, 4), rng.randint(0, 4)))
        match rng.randrange(12):
            case 0 | 1 | 2:
                if rng.random() < 0.1:
                    world.broken.add((name, version))
                if rng.random() < 0.1:
                    world.deadly.add((name, version))
                world.plan(time, lambda n=name, v=version: made.deploy(n, v))
                if rng.random() < 0.5:
                    operator.later(time + 0.01, "rescan")
                else:
                    world.plan(time + 0.01, lambda: world.read_store(asked=False))
            case 3:
                operator.later(time, "default", model=name, version=version, **wait)
            case 4:
                operator.later(time, "split", model=name, weights={version: 3, other: 1}, **wait)
            case 5:
                operator.later(time, "split", model=name, weights={})
            case 6 | 7:
                operator.later(time, "scale", model=name, version=version, min=low, max=high, **wait)
            case 8:
                operator.later(time, "unregister", model=name, version=rng.choice((version, version, "")))
            case 9:
                operator.later(time, "register", path=rng.choice((name, f"{name}/{version}")), **wait)
            case 10:
                world.plan(time, drain_someone(world, operator))
            case 11 if made.agents:
                agent = rng.choice(made.agents)
                count = {"count": rng.randint(0, agent.offer.workers_max)} if rng.random() < 0.8 else {}
                operator.later(time, "workers", host=agent.host, **count)
            case 11:
                world.plan(time, lambda n=name: made.remove(n))
                operator.later(time + 0.01, "rescan")


def make_faults(made: Operated) -> None:
    world, rng = made.world, made.world.random
    faults = [world.crash] * 3 + [WorkerNode.hang, WorkerNode.freeze, world.drain]

    def somebody(fault: Any) -> None:
        if world.workers:
            fault(rng.choice(world.workers))

    for _ in range(rng.choice((0, 0, 2, 6))):
        fault = rng.choice(faults)
        world.plan(rng.uniform(0, LOAD_S), lambda fault=fault: somebody(fault))
    for _ in range(rng.choice((0, 0, 1, 2))):
        world.plan(rng.uniform(0, LOAD_S), lambda: world.crash(world.broker))
    for agent in made.agents:
        for _ in range(rng.choice((0, 1, 2))):
            world.plan(rng.uniform(0, LOAD_S), lambda agent=agent: world.crash(agent))


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_ordered_and_dies_requests_have_one_outcome_and_all_becomes_as_ordered(seed: int) -> None:
    made = rough(seed)
    make_load(made, rate=random.Random(seed + 1).choice((10, 40)))
    make_orders(made)
    make_faults(made)
    made.world.start()
    made.settle(LOAD_S + max(TIMEOUTS_S) + 6.0)


def calm(workers: int = 3, copies: int = 2, **keys: Any) -> Operated:
    made = Operated(1, [spec("m", copies=copies, **keys)])
    made.world.add_workers(workers)
    made.world.add_callers(2)
    return made


def ask_steadily(made: Operated, rate: float, until: float, version: str = "") -> None:
    """From second 3 on, when everything is loaded."""
    for id in range(1, int((until - 3.0) * rate)):
        caller = made.world.callers[id % 2]
        ask = (id, "m", 10.0, b"request %d" % id, 0, version)
        made.world.plan(3.0 + id / rate, lambda caller=caller, ask=ask: caller.ask(*ask))


def no_request_failed(made: Operated, count: int) -> None:
    made.settle(made.world.planned + 15.0)
    assert len(made.world.judge.outcomes) == count
    assert not made.world.judge.errors


def versions_served(made: Operated) -> set[str]:
    """Those that have answered a request without an error."""
    return {key[1] for key, stats in made.broker.stats.items() if stats.outcomes["ok"]}


def test_a_rolling_deploy_with_split_rollback_scaling_and_restarts_fails_no_request() -> None:
    made = calm(batch_size_max=8)
    operator, world = made.operator, made.world
    ask_steadily(made, 100, until=23.0)
    world.plan(4.0, lambda: made.deploy("m", "2"))
    operator.later(3.5, "default", model="m", version="1")
    operator.later(4.1, "rescan")
    operator.later(6.0, "split", model="m", weights={"1": 9, "2": 1}, wait=1)
    operator.later(8.0, "default", model="m", version="2", wait=1)
    operator.later(10.0, "default", model="m", version="1", wait=1)
    operator.later(11.0, "scale", model="m", version="1", min=3, wait=1)
    operator.later(13.0, "scale", model="m", version="1", min=1, wait=1)
    world.plan(15.0, lambda: world.crash(world.broker))
    operator.later(18.0, "default", model="m", version="2", wait=1)
    operator.later(20.0, "unregister", model="m", version="1")
    world.start()
    no_request_failed(made, 1999)
    assert all("error" not in given.answer for given in operator.given.values() if given.answer)
    assert versions_served(made) == {"2"}


def test_draining_every_worker_in_turn_fails_no_request() -> None:
    made = calm(batch_size_max=8)
    ask_steadily(made, 100, until=15.0)
    for number in range(3):
        made.operator.later(4.0 + 3 * number, "drain", worker=f"w{number}", wait=1)
    made.world.start()
    no_request_failed(made, 1199)
    assert {worker.life for worker in made.world.workers} == {2}


def test_an_agent_that_is_killed_and_comes_back_at_once_keeps_its_workers() -> None:
    made = Operated(1, [spec("m", copies=2, batch_size_max=8)], Nature(restart_s=(0.02, 0.05)))
    agent = made.add_agent("a", 3, 3)
    made.world.add_callers(2)
    ask_steadily(made, 100, until=12.0)
    for at in (4.0, 5.0, 6.0):
        made.world.plan(at, lambda: made.world.crash(agent))
    made.world.start()
    no_request_failed(made, 899)
    assert agent.life == 4
    assert {worker.life for worker in made.world.workers} == {1}, "no worker was stopped for it"


def test_workers_that_end_are_started_again_by_their_agent_and_the_broker_knows_at_once() -> None:
    made = Operated(1, [spec("m", copies=2, batch_size_max=8)])
    made.add_agent("a", 3, 3)
    made.world.add_callers(2)
    ask_steadily(made, 100, until=12.0)
    for number in (1, 2, 3):
        name = f"a-w{number}"
        killed = lambda name=name: made.world.crash(next(w for w in made.world.workers if w.name == name))  # noqa: E731
        made.world.plan(3.0 + 2 * number, killed)
    made.world.start()
    no_request_failed(made, 899)
    lost = [note.facts for _, note in made.broker.board.notes if note.event == "worker lost"]
    assert all("was killed by SIGKILL" in facts["reason"] for facts in lost) or len(lost) == 0


def test_after_a_restart_of_the_broker_nothing_is_loaded_that_a_worker_brings() -> None:
    specs = [spec(f"m{i}", copies=1) for i in range(6)]
    made = Operated(1, specs)
    made.world.add_workers(6)
    made.world.start()
    made.world.clock.run(10.0)
    made.world.crash(made.world.broker)
    made.world.clock.run(20.0)
    made.check_calm()
    assert made.world.broker.life == 2 and not made.world.broker.orders


def test_a_version_whose_load_kills_workers_takes_two_of_them_and_then_one_a_minute_at_most() -> None:
    made = calm(workers=6, copies=1)
    world = made.world
    world.deadly.add(("m", "2"))
    ask_steadily(made, 20, until=100.0)
    made.operator.later(3.5, "default", model="m", version="1")
    world.plan(4.0, lambda: made.deploy("m", "2"))
    made.operator.later(4.1, "rescan")
    made.operator.later(5.0, "default", model="m", version="2", wait=1)
    world.plan(20.0, lambda: world.callers[0].ask(99_999, "m", 5.0, b"request 99999", 0, "2"))
    world.start()
    world.clock.run(RETRY_S)
    assert sum(worker.life - 1 for worker in world.workers) == LOST_MAX
    [second] = [m for m in made.broker._state.models() if m["version"] == "2"]
    assert second["state"] == "failed" and "2 workers were lost while they loaded it" in second["error"]
    [waited] = [given.answer for given in made.operator.given.values() if given.arguments.get("wait")]
    assert waited and "2 workers were lost" in waited["error"]
    assert world.judge.errors == {"NotReady": 1}
    world.settle_down(120.0)
    assert sum(worker.life - 1 for worker in world.workers) == LOST_MAX + 1, "it was tried again, once"
    world.deadly.clear()
    made.operator.order("register", path="m/2", wait=1)
    made.world.clock.run(world.now + 5.0)
    assert made.broker.board.ready(("m", "2")) == 1
    assert made.broker.catalog.serving("m") == {"2": 1.0}


def test_scaled_to_none_the_first_request_waits_for_the_load() -> None:
    made = calm(copies=1)
    made.operator.later(3.0, "scale", model="m", min=0, max=2)
    made.world.plan(310.0, lambda: made.world.callers[0].ask(1, "m", 5.0, b"request 1"))
    made.world.start()
    made.world.clock.run(309.0)
    assert made.broker.board.copies[("m", "1")] == 0 and not made.broker.board.ready(("m", "1"))
    no_request_failed(made, 1)
