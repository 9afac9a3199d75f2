"""The fleet: which workers agents start and stop, as the world changes under it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from headway.messages import AgentWorker, StartWorker, StopWorker
from headway_broker.fleet import Fleet, FleetOrder, Joined, Need
from headway_broker.offers import Offer, Place
from tests.broker.bench import spec

GPUS = (Place("cuda:0", "GPU-0", 1000, 2), Place("cuda:1", "GPU-1", 1000, 2))
CPU = (Place("cpu", "cpu", 0, 8),)


@dataclass
class Node:
    """A host: its agent, and the processes. A worker that was started is on the roster a look later."""

    host: str
    most: int = 4
    wanted: int = 2
    places: tuple[Place, ...] = GPUS
    joined_at: float = 0.0
    copies_max: int = 0
    up: bool = True
    known: dict[str, AgentWorker] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)  # of what is on the roster
    draining: set[str] = field(default_factory=set)

    @property
    def offer(self) -> Offer:
        known = dict(self.known)
        return Offer(self.host, self.most, self.wanted, self.places, known, self.joined_at, self.copies_max)

    def begin(self, name: str, device: str) -> None:
        self.known[name] = AgentWorker(name, 7, device, "running", "")
        self.copies[name] = 0

    def end(self, name: str, reason: str = "exit code 1") -> AgentWorker:
        self.copies.pop(name, None)
        self.known[name] = self.known[name]._replace(state="ended", reason=reason)
        return self.known[name]


class Town:
    """A fleet and its hosts. `look` is one look; unless they `hear`, the agents do not obey."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.host: node for node in nodes}
        self.fleet = Fleet()
        self.ordered: dict[str, int] = {}
        self.needs: list[Need] = []
        self.now = 0.0

    def look(self, seconds: float = 1.0, hear: bool = True) -> list[str]:
        self.now += seconds
        orders = self.fleet.orders(
            [node.offer for node in self.nodes.values() if node.up],
            {
                name: Joined(node.host, copies, name in node.draining)
                for node in self.nodes.values()
                for name, copies in node.copies.items()
            },
            self.ordered,
            self.needs,
            self.now,
        )
        for order in orders if hear else []:
            self.obey(order)
        return [_words(order) for order in orders]

    def looks(self, count: int, seconds: float = 1.0) -> list[str]:
        return [words for _ in range(count) for words in self.look(seconds)]

    def obey(self, order: FleetOrder) -> None:
        node = self.nodes[order.host]
        match order.message:
            case StartWorker(name=name, device=device):
                assert node.known.get(name) is None or node.known[name].state == "ended", "a name twice"
                node.begin(name, device)
            case StopWorker(name=name):
                if name in node.known:
                    self.end(node, name, "stopped")

    def end(self, node: Node, name: str, reason: str) -> None:
        self.fleet.ended(node.host, node.end(name, reason), self.now)

    def running(self, host: str = "h") -> dict[str, str]:
        known = self.nodes[host].known.values()
        return {worker.name: worker.device for worker in known if worker.state != "ended"}


def _words(order: FleetOrder) -> str:
    message = order.message
    if isinstance(message, StartWorker):
        return f"start {message.name} {message.device}"
    return f"stop {message.name}"


def need(name: str = "m", copies: int = 1, need_bytes: int = 0, device: str = "cuda") -> Need:
    return Need(spec(name, device=device), copies, need_bytes, "no worker has a device cuda")


# ---- the number ----


def test_a_host_gets_as_many_workers_as_its_agent_says_spread_over_its_devices() -> None:
    town = Town(Node("h", wanted=3))
    assert town.look() == ["start h-w1 cuda:0", "start h-w2 cuda:1", "start h-w3 cuda:0"]
    assert town.looks(200) == []


def test_or_as_many_as_were_ordered() -> None:
    town = Town(Node("h"), Node("g"))
    town.ordered = {"h": 4}
    assert len([words for words in town.look() if "h-w" in words]) == 4
    assert len(town.running("g")) == 2
    town.ordered = {"h": 1}
    town.nodes["h"].copies.update({"h-w1": 3, "h-w2": 1, "h-w3": 2, "h-w4": 5})
    assert sorted(town.look()) == ["stop h-w1", "stop h-w2", "stop h-w3"], "those with the fewest copies"
    assert town.looks(100) == []
    town.ordered = {}
    assert len(town.look()) == 1 and len(town.running()) == 2


@pytest.mark.parametrize(("most", "count"), [(3, 3), (9, 4), (0, 0)])
def test_never_more_than_the_host_may_have_or_its_devices_have_places(most: int, count: int) -> None:
    town = Town(Node("h", most=most, wanted=9))
    town.ordered = {"h": 50}
    town.looks(50)
    assert len(town.running()) == count
    assert all(list(town.running().values()).count(place.device) <= place.places for place in GPUS)


def test_a_share_and_a_reason_go_with_the_order() -> None:
    node = Node("h", wanted=1, places=(Place("cuda:0", "GPU-0", 0, 2, 40),))
    (order,) = Fleet().orders([node.offer], {}, {}, [], 0.0)
    assert order == FleetOrder("h", StartWorker("h-w1", "cuda:0", 40, "1 workers are wanted on h"))


def test_a_name_is_the_lowest_that_nobody_has() -> None:
    node = Node("h", wanted=1)
    node.copies = {"h-w1": 0, "h-w3": 1}  # somebody started them by hand
    town = Town(node)
    town.ordered = {"h": 3}
    assert [words.split()[1] for words in town.look()] == ["h-w2"], "they count"


def test_a_name_that_a_worker_of_another_host_has_is_not_given() -> None:
    other = Node("g", wanted=0)
    other.copies = {"h-w1": 1}
    assert Town(Node("h", wanted=1), other).look() == ["start h-w2 cuda:0"]


def test_workers_with_other_names_do_not_count() -> None:
    node = Node("h", wanted=1)
    node.copies = {"mine": 1, "g-w1": 1, "h-wx": 1}
    assert Town(node).look() == ["start h-w1 cuda:0"]


# ---- orders that are on their way ----


def test_what_was_ordered_is_not_ordered_again_at_every_look() -> None:
    town = Town(Node("h"))
    assert len(town.look(hear=False)) == 2
    assert [town.look(hear=False) for _ in range(25)] == [[]] * 25


def test_a_start_of_which_nothing_is_heard_is_given_up_and_its_name_used_again() -> None:
    town = Town(Node("h"))
    first = town.look(hear=False)
    assert town.look(31.0) == first


def test_a_worker_that_does_not_stop_is_told_again() -> None:
    town = Town(Node("h"))
    town.look()
    town.ordered = {"h": 1}
    assert town.look(hear=False) == ["stop h-w2"]
    assert [words for _ in range(9) for words in town.look(hear=False)] == []
    assert town.look(2.0) == ["stop h-w2"]
    assert town.looks(50) == []


# ---- those that end ----


def test_a_worker_that_ended_is_started_again_with_its_name_and_place() -> None:
    town = Town(Node("h"))
    town.look()
    town.look(100.0)
    town.end(town.nodes["h"], "h-w2", "killed by SIGKILL")
    assert town.look(0.1) == []
    assert town.look(0.2) == ["start h-w2 cuda:1"]


def test_one_that_keeps_ending_is_started_after_ever_longer_pauses() -> None:
    town = Town(Node("h", wanted=1))
    town.look()
    pauses = []
    for _ in range(10):
        town.end(town.nodes["h"], "h-w1", "exit code 1")
        ended = town.now
        while not town.look(0.25):
            pass
        pauses.append(town.now - ended)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    town.looks(40)
    town.end(town.nodes["h"], "h-w1", "exit code 1")
    assert town.look(0.25) == ["start h-w1 cuda:0"], "it lived for a while"


def test_one_whose_settings_are_wrong_waits_a_minute() -> None:
    town = Town(Node("h", wanted=1))
    town.look()
    town.end(town.nodes["h"], "h-w1", "exit code 78 (CONFIG)")
    assert town.looks(59) == []
    assert town.look() == ["start h-w1 cuda:0"]


def test_one_that_cannot_be_started_waits_too() -> None:
    town = Town(Node("h", wanted=1))
    town.look(hear=False)
    for pause_s in (0.25, 0.5, 1.0):
        town.fleet.ended("h", AgentWorker("h-w1", 0, "cuda:0", "ended", "no such file"), town.now)
        assert town.look(pause_s / 2, hear=False) == []
        assert town.look(pause_s / 2, hear=False) == ["start h-w1 cuda:0"]


def test_an_end_that_is_reported_twice_is_one() -> None:
    town = Town(Node("h", wanted=1))
    town.look()
    for _ in range(5):
        town.end(town.nodes["h"], "h-w1", "exit code 1")
    assert town.look(0.25) == ["start h-w1 cuda:0"]


def test_a_name_that_is_still_on_the_roster_is_not_started_again_yet() -> None:
    town = Town(Node("h", wanted=1))
    town.look()
    node = town.nodes["h"]
    town.end(node, "h-w1", "exit code 1")
    node.copies["h-w1"] = 2  # the broker has not lost it yet
    assert town.looks(3) == []
    del node.copies["h-w1"]
    assert town.look() == ["start h-w1 cuda:0"]


def test_an_end_that_was_reported_by_mistake_is_forgotten() -> None:
    """An agent that is told to start what is there says that this cannot be, and then that it runs."""
    town = Town(Node("h", wanted=1))
    town.look()
    town.fleet.ended(
        "h", AgentWorker("h-w1", 0, "cuda:0", "ended", "a worker called h-w1 is there already"), town.now
    )
    assert town.looks(100) == []


def test_a_worker_that_drains_is_replaced_and_not_started_again() -> None:
    node = Node("h", most=3)
    town = Town(node)
    town.look()
    node.draining.add("h-w1")
    assert town.look() == ["start h-w3 cuda:0"]
    town.end(node, "h-w1", "exit code 0")
    assert town.looks(100) == []
    assert sorted(town.running()) == ["h-w2", "h-w3"]


def test_one_that_its_agent_stops_is_replaced_and_not_started_again() -> None:
    """As it does to those that share a device with one that failed it."""
    node = Node("h", wanted=1)
    town = Town(node)
    town.look()
    node.known["h-w1"] = node.known["h-w1"]._replace(state="stopping")
    assert town.look() == ["start h-w2 cuda:1"]
    town.end(node, "h-w1", "restarted")
    assert town.looks(100) == []


def test_two_hosts_may_have_workers_of_one_name() -> None:
    nodes = [Node("h", wanted=1), Node("g", wanted=1)]
    for node in nodes:
        node.known["gpu"] = AgentWorker("gpu", 7, "cuda:0", "running", "")
    town = Town(*nodes)
    assert town.look() == []
    town.end(nodes[1], "gpu", "exit code 1")
    assert town.look() == ["start gpu cuda:0"]


def test_one_that_drains_on_a_full_host_is_replaced_when_it_has_gone() -> None:
    node = Node("h", most=2)
    town = Town(node)
    town.look()
    node.draining.add("h-w1")
    assert town.looks(20) == []
    town.end(node, "h-w1", "exit code 0")
    assert town.look() == ["start h-w1 cuda:0"]


# ---- agents that come and go ----


def test_nothing_is_started_where_the_agent_is_gone() -> None:
    node = Node("h")
    town = Town(node)
    town.look()
    node.up = False
    node.copies.clear()
    town.ordered = {"h": 4}
    town.needs = [need(copies=4)]
    assert town.looks(100) == []


@pytest.mark.parametrize("adopted", [0, 1, 2, 3, 4])
def test_an_agent_that_died_in_the_middle_of_a_scale_up_comes_back_with_half_of_its_workers(
    adopted: int,
) -> None:
    """It was told to start four; some it started, and the orders for the rest died with it."""
    node = Node("h")
    town = Town(node)
    town.ordered = {"h": 4}
    orders = town.look(hear=False)
    for words in orders[:adopted]:
        node.begin(*words.split()[1:])
    node.up = False
    assert town.look() == []
    node.up, node.joined_at = True, town.now
    assert town.look() == orders[adopted:], "no more, no less, and no name twice"
    assert town.looks(100) == []
    assert len(town.running()) == 4


def test_workers_that_died_with_their_agent_are_started_again_and_those_on_the_roster_are_not() -> None:
    node = Node("h")
    town = Town(node)
    town.ordered = {"h": 4}
    town.looks(60)
    node.up = False
    town.look()
    node.up, node.joined_at = True, town.now
    for name in ("h-w1", "h-w2", "h-w3"):
        del node.known[name]
    del node.copies["h-w1"], node.copies["h-w2"]  # h-w3 lives on, and nobody's child
    assert sorted(town.looks(5)) == ["start h-w1 cuda:0", "start h-w2 cuda:1"]
    assert town.looks(100) == []


def test_a_broker_that_was_started_anew_finds_the_workers_that_there_are() -> None:
    node = Node("h", wanted=3)
    Town(node).look()
    node.copies = {}
    town = Town(node)
    assert town.look() == []
    node.copies = dict.fromkeys(node.known, 1)
    town.needs = [need()]
    assert town.look() == ["start h-w4 cuda:1"]


# ---- what is short ----


def test_a_version_that_is_short_gets_a_worker_and_only_one() -> None:
    town = Town(Node("h", wanted=0))
    town.needs = [need(copies=1)]
    assert town.look() == ["start h-w1 cuda:0"]
    assert town.looks(20) == []
    town.needs = [need(copies=3)]
    assert town.look() == ["start h-w2 cuda:1", "start h-w3 cuda:0"]


def test_versions_share_what_is_on_its_way_as_far_as_they_fit() -> None:
    town = Town(Node("h", wanted=0))
    town.needs = [need("a", need_bytes=600), need("b", need_bytes=300), need("c", need_bytes=300)]
    assert len(town.look()) == 2
    assert town.looks(20) == []


def test_workers_that_are_about_to_join_are_counted_first() -> None:
    town = Town(Node("h", wanted=1))
    town.needs = [need(f"m{i}") for i in range(9)]
    assert town.look() == ["start h-w1 cuda:0"]
    assert town.looks(20) == []


def test_the_emptiest_host_is_taken_where_the_device_is() -> None:
    town = Town(Node("c", wanted=0, most=8, places=CPU), Node("g", wanted=2), Node("h", wanted=1))
    town.look()
    for node in town.nodes.values():
        node.copies = dict.fromkeys(node.copies, 1)
    town.needs = [need()]
    assert town.look() == ["start h-w2 cuda:1"]
    town.needs = [need("x", device="cpu")]
    town.nodes["h"].copies["h-w2"] = 1
    assert town.look() == ["start c-w1 cpu"]


def test_what_fits_nowhere_starts_nothing() -> None:
    town = Town(Node("h", wanted=0), Node("c", wanted=0, places=CPU))
    town.needs = [need("large", need_bytes=1001), need("odd", device="cuda:7")]
    assert town.looks(20) == []


def test_a_host_whose_number_was_ordered_gets_no_more() -> None:
    town = Town(Node("h"))
    town.ordered = {"h": 1}
    town.look()
    town.nodes["h"].copies["h-w1"] = 1
    town.needs = [need(copies=3)]
    assert town.looks(20) == []


def test_a_worker_above_the_number_that_had_no_copies_for_a_minute_is_stopped() -> None:
    node = Node("h", wanted=1)
    town = Town(node)
    town.needs = [need(copies=2)]
    town.look()
    node.copies = {"h-w1": 1, "h-w2": 1}
    town.needs = []
    assert town.looks(100) == []
    node.copies["h-w2"] = 0
    assert town.looks(60) == []
    assert town.look() == ["stop h-w2"]
    node.copies["h-w1"] = 0
    assert town.looks(100) == [], "what its agent wants stays"


def test_a_version_that_a_new_worker_did_not_help_gets_no_other_for_a_while() -> None:
    town = Town(Node("h", wanted=0))
    town.needs = [need()]
    town.look()
    assert town.looks(62) == ["stop h-w1"]
    assert town.looks(500) == []
    assert town.looks(100)[0] == "start h-w1 cuda:0"


def test_a_worker_that_keeps_ending_is_not_what_a_version_waits_for() -> None:
    node = Node("h", wanted=0)
    town = Town(node, Node("g", wanted=0))
    town.needs = [need()]
    (words,) = town.look()
    host, name = words.split()[1].split("-")[0], words.split()[1]
    for _ in range(3):
        town.end(town.nodes[host], name, "exit code 1")
        while name not in town.running(host):
            if others := [w for w in town.look(0.25) if name not in w]:
                assert "start h" in others[0] or "start g" in others[0]
                return
    pytest.fail("no other was started")


def test_a_worker_that_never_joins_is_not_what_a_version_waits_for() -> None:
    node = Node("h", wanted=0)
    town = Town(node)
    town.needs = [need()]
    town.look()
    node.copies.clear()
    assert town.looks(119) == []
    assert town.look() == ["start h-w2 cuda:1"]


def test_one_that_ended_often_and_now_lives_is_as_good_as_any() -> None:
    town = Town(Node("h", wanted=1))
    town.look()
    for _ in range(4):
        town.end(town.nodes["h"], "h-w1", "exit code 1")
        town.looks(5)
    town.looks(30)
    town.needs = [need()]
    assert town.looks(20) == []


# ---- all at once ----


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_there_are_in_the_end_as_many_as_there_should_be(seed: int) -> None:
    dice = random.Random(seed)
    nodes = [Node(f"h{i}", wanted=dice.randint(0, 4), most=dice.randint(1, 5)) for i in range(3)]
    town = Town(*nodes)
    for _ in range(200):
        node = dice.choice(nodes)
        running = list(town.running(node.host))
        match dice.randrange(8):
            case 0:
                node.up = False
            case 1 if not node.up:
                node.up, node.joined_at = True, town.now
                for name in dice.sample(running, len(running) // 2):
                    del node.known[name]
                    node.copies.pop(name, None)
            case 2 if running and node.up:
                town.end(
                    node, dice.choice(running), dice.choice(["killed by SIGKILL", "exit code 78 (CONFIG)"])
                )
            case 3:
                town.ordered[node.host] = dice.randint(0, 5)
            case 4:
                town.ordered.pop(node.host, None)
            case 5:
                town.needs = [need(f"m{i}", dice.randint(1, 3)) for i in range(dice.randint(0, 2))]
            case 6 if running:
                node.copies[dice.choice(running)] = dice.randint(0, 3)
            case 7 if running:
                node.draining.add(dice.choice(running))
        for words in town.look(dice.choice([0.1, 1.0, 5.0]), hear=dice.random() > 0.1):
            assert words.split()[1].split("-")[0] in [n.host for n in nodes if n.up], "where no agent is"
        for each in nodes:
            assert len(town.running(each.host)) <= each.offer.room
            each.draining &= town.running(each.host).keys()
    town.needs = []
    for node in nodes:
        if not node.up:
            node.up, node.joined_at = True, town.now
        for name in list(node.draining):
            town.end(node, name, "exit code 0")
        node.draining.clear()
        node.copies = dict.fromkeys(town.running(node.host), 0)
    town.looks(300)
    assert town.looks(100) == []
    for node in nodes:
        goal = town.ordered.get(node.host, node.wanted)
        assert len(town.running(node.host)) == min(goal, node.offer.room)


# ---- so many copies in a worker ----


@pytest.mark.parametrize(("copies_max", "started"), [(0, 1), (1, 3), (2, 2)])
def test_a_worker_on_its_way_is_counted_for_as_many_copies_as_it_takes(copies_max: int, started: int) -> None:
    town = Town(Node("h", most=4, wanted=0, copies_max=copies_max))
    town.needs = [need("a"), need("b"), need("c")]
    assert len(town.look()) == started
    assert town.look() == [], "they are on their way"


def test_workers_with_one_copy_each_are_started_within_the_hosts_limit() -> None:
    town = Town(Node("h", most=3, wanted=0, copies_max=1))
    town.needs = [need("a", copies=2), need("b", copies=2)]
    assert len(town.look()) == 3
    town.nodes["h"].copies = dict.fromkeys(town.nodes["h"].copies, 1)
    town.needs = [need("b")]
    assert town.looks(3) == [], "the host is full"
