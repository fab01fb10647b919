"""The queue: limits, turns and priorities hold whatever the order in which runs come and go."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runtime.queue import TURNS, Queue


def fill(queue: Queue[str], tenant: str, agent: str, count: int, **options: object) -> list[str]:
    """Let so many runs enter; those that may start at once."""
    ids = [f"{tenant}/{agent}/{number:05}" for number in range(count)]
    return [id_ for id_ in ids if queue.enter(tenant, agent, id_, id_, **options)]  # type: ignore[arg-type]


def served(queue: Queue[str], first: list[str], count: int) -> list[str]:
    """Who starts next, when always the one that works longest ends."""
    working, order = list(first), []
    while working and len(order) < count:
        tenant, agent, _ = working.pop(0).split("/")
        started = queue.leave(tenant, agent)
        order += started
        working += started
    return order[:count]


def test_an_agent_starts_its_runs_in_the_order_they_were_accepted() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=1, depth=100)
    assert queue.enter("t", "a", "0", "t/a/0")
    for id_ in ("5", "3", "4"):
        assert not queue.enter("t", "a", id_, f"t/a/{id_}")
    assert served(queue, ["t/a/0"], 9) == ["t/a/3", "t/a/4", "t/a/5"]


def test_an_agent_at_its_own_limit_holds_up_no_other() -> None:
    queue: Queue[str] = Queue()
    assert len(fill(queue, "t", "slow", 10, most=2)) == 2
    assert len(fill(queue, "t", "other", 10)) == 10
    assert queue.of_agent("t", "slow") == (2, 8) and queue.counts("t") == (12, 8)


def test_agents_take_turns_however_many_one_of_them_has_waiting() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=1, depth=10_000)
    first = fill(queue, "t", "many", 1_000)
    fill(queue, "t", "few", 3)
    order = [run.split("/")[1] for run in served(queue, first, 20)]
    assert order.count("few") == 3 and order[: 2 * TURNS["normal"]].count("few") >= 1


def test_a_higher_priority_gets_more_turns_and_a_lower_one_never_none() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=1, depth=10_000)
    first = fill(queue, "t", "normal", 500)
    for priority in ("low", "high"):
        fill(queue, "t", priority, 500, priority=priority)
    rounds = sum(TURNS.values())
    got = Counter(run.split("/")[1] for run in served(queue, first, rounds * 10))
    assert got["high"] > got["normal"] > got["low"] >= 9
    assert abs(got["high"] - 160) <= 16 and abs(got["normal"] - 40) <= 4


def test_tenants_take_turns_under_the_limit_of_the_process() -> None:
    queue: Queue[str] = Queue(total=4)
    first = fill(queue, "big", "a", 1_000)
    fill(queue, "small", "a", 5)
    fill(queue, "other", "a", 5)
    assert len(first) == 4
    order = [run.split("/")[0] for run in served(queue, first, 16)]
    assert order.count("small") == 5 and order.count("other") == 5


def test_places_are_promised_up_to_the_depth_and_given_back() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=2, depth=3)
    assert [queue.reserve("t") for _ in range(7)] == [True] * 5 + [False] * 2
    queue.withdraw("t")
    assert queue.reserve("t") and not queue.reserve("t")
    assert queue.reserve("somebody else")
    started = [queue.enter("t", "a", str(n), f"t/a/{n}", reserved=True) for n in range(5)]
    assert started == [True, True, False, False, False] and not queue.reserve("t")
    assert queue.leave("t", "a") == ["t/a/2"] and queue.reserve("t")


def test_a_limit_that_is_raised_starts_those_that_wait() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=1, depth=10)
    fill(queue, "t", "a", 5)
    assert queue.limit("t", concurrent=3, depth=10) == ["t/a/00001", "t/a/00002"]
    assert queue.limit("t", concurrent=1, depth=10) == []
    assert queue.leave("t", "a") == [] and queue.leave("t", "a") == []
    assert queue.leave("t", "a") == ["t/a/00003"]


TENANTS, AGENTS = ("p", "q", "r"), ("a", "b", "c")


class QueueMachine(RuleBasedStateMachine):
    """Runs come and go in any order, under limits that change."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[tuple[str, str, int]] = Queue(total=6)
        self.working: list[tuple[str, str, int]] = []
        self.waiting: list[tuple[str, str, int]] = []
        self.number = 0
        self.most = {(tenant, agent): 0 for tenant in TENANTS for agent in AGENTS}
        self.concurrent = dict.fromkeys(TENANTS, 200)

    def started(self, runs: list[tuple[str, str, int]]) -> None:
        for run in runs:
            same = [other for other in self.waiting if other[:2] == run[:2]]
            assert run == min(same, key=lambda other: other[2]), "the oldest of an agent goes first"
            self.waiting.remove(run)
            self.working.append(run)

    @rule(
        tenant=st.sampled_from(TENANTS),
        agent=st.sampled_from(AGENTS),
        most=st.sampled_from([0, 1, 2]),
        priority=st.sampled_from(list(TURNS)),
        times=st.integers(1, 5),
    )
    def enter(self, tenant: str, agent: str, most: int, priority: str, times: int) -> None:
        for _ in range(times):
            self.number += 1
            run = (tenant, agent, self.number)
            if (tenant, agent) in self.most and not any(r[:2] == run[:2] for r in self.working + self.waiting):
                self.most[tenant, agent] = most
            said = self.queue.may_start(tenant, agent, self.most[tenant, agent])
            now = self.queue.enter(
                tenant, agent, f"{self.number:06}", run, most=self.most[tenant, agent], priority=priority
            )
            assert said == now
            (self.working if now else self.waiting).append(run)

    @precondition(lambda self: self.working)
    @rule(which=st.integers(0, 10_000))
    def leave(self, which: int) -> None:
        run = self.working.pop(which % len(self.working))
        self.started(self.queue.leave(run[0], run[1]))

    @rule(tenant=st.sampled_from(TENANTS), concurrent=st.integers(1, 4))
    def limit(self, tenant: str, concurrent: int) -> None:
        self.concurrent[tenant] = concurrent
        self.started(self.queue.limit(tenant, concurrent=concurrent, depth=10_000))

    @invariant()
    def keeps_count(self) -> None:
        for tenant in TENANTS:
            mine = [[run for run in runs if run[0] == tenant] for runs in (self.working, self.waiting)]
            assert self.queue.counts(tenant) == (len(mine[0]), len(mine[1]))
        assert self.queue.working == len(self.working) <= 6

    @invariant()
    def nobody_waits_who_could_work(self) -> None:
        for tenant, agent, _ in self.waiting:
            of_tenant = sum(run[0] == tenant for run in self.working)
            of_agent = sum(run[:2] == (tenant, agent) for run in self.working)
            most = self.most[tenant, agent]
            full = len(self.working) >= 6 or of_tenant >= self.concurrent[tenant] or (most and of_agent >= most)
            assert full, "a place is free and somebody waits for it"

    def teardown(self) -> None:
        while self.working:
            self.leave(0)
        assert not self.waiting, "nobody starves"


TestQueue = QueueMachine.TestCase


@given(st.lists(st.tuples(st.sampled_from(TENANTS), st.sampled_from(AGENTS)), max_size=60), st.integers(1, 5))
def test_every_run_is_started_once(runs: list[tuple[str, str]], total: int) -> None:
    queue: Queue[str] = Queue(total=total)
    names = [f"{tenant}/{agent}/{number:03}" for number, (tenant, agent) in enumerate(runs)]
    first = [name for name in names if queue.enter(*name.split("/")[:2], name, name)]  # type: ignore[misc]
    assert sorted(first + served(queue, first, 10_000)) == sorted(names)


def test_who_leaves_the_line_is_not_started() -> None:
    queue: Queue[str] = Queue()
    queue.limit("t", concurrent=1, depth=10)
    first = fill(queue, "t", "a", 4)
    assert queue.drop("t", "a", "t/a/00002") and not queue.drop("t", "a", "t/a/00002")
    assert not queue.drop("t", "nobody", "x") and not queue.drop("nobody", "a", "x")
    assert served(queue, first, 9) == ["t/a/00001", "t/a/00003"]
    assert queue.counts("t") == (0, 0)


def test_an_unknown_priority_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Queue[str]().enter("t", "a", "1", "x", priority="urgent")
