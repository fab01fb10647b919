"""What the demand of a pool is told, and what it says will be wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.workers.demand import Demand
from tests.bench.demand import hit_rate, trace


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = 500.0

    def __call__(self) -> float:
        return self.at


def test_without_jobs_nothing_is_wanted() -> None:
    assert Demand().target() == 0


def test_more_jobs_and_longer_ones_want_more_workers() -> None:
    def after(jobs: int, seconds: float) -> int:
        clock = Clock()
        demand = Demand(now=clock)
        for _ in range(jobs):
            clock.at += 20 / jobs
            demand.arrived(at_work=1)
            demand.served(seconds)
        return demand.target()

    assert after(10, 0.01) < after(400, 0.3) < after(400, 2.0)


def test_old_demand_is_forgotten() -> None:
    clock = Clock()
    demand = Demand(now=clock)
    for _ in range(100):
        demand.arrived()
    assert demand.target() > 10
    clock.at += 3_600
    assert (demand.target(), demand.rate() < 0.001) == (0, True)


def test_what_is_expected_counts_from_a_little_before_until_it_is_over() -> None:
    clock = Clock()
    demand = Demand(now=clock)
    demand.expect(4, 530.0, lasts=10.0)
    seen = {}
    for clock.at in (500.0, 524.0, 526.0, 535.0, 541.0):
        seen[clock.at] = demand.target(ahead=5.0)
    assert seen == {500.0: 0, 524.0: 0, 526.0: 4, 535.0: 4, 541.0: 0}


def test_what_has_come_is_expected_no_more() -> None:
    demand = Demand()
    demand.expect(2, demand.now(), lasts=100, key="run_1")
    demand.expect(3, demand.now(), lasts=100, key="run_2")
    assert demand.known() == 5
    demand.arrived("run_1")
    assert demand.known() == 4
    demand.arrived("run_1")
    demand.arrived("run_1")
    assert demand.known() == 3


def test_what_was_met_takes_no_room() -> None:
    demand = Demand()
    for number in range(10_000):
        demand.expect(1, demand.now(), lasts=3_600, key=f"run {number}")
        demand.known()
        demand.arrived(f"run {number}")
    assert demand.known() == 0
    assert len(demand._ends) < 2_000


def test_the_same_key_again_replaces_what_was_said() -> None:
    demand = Demand()
    demand.expect(2, demand.now(), lasts=100, key="a")
    assert demand.known() == 2
    forget = demand.expect(7, demand.now(), lasts=100, key="a")
    assert demand.known() == 7
    forget()
    forget()
    assert demand.known() == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("expect"), st.integers(0, 5), st.floats(-20, 50), st.floats(0, 30), st.sampled_from("abc")
            ),
            st.tuples(st.just("came"), st.sampled_from("abc")),
            st.tuples(st.just("forget"), st.integers(0, 20)),
            st.tuples(st.just("wait"), st.floats(0, 40)),
        ),
        max_size=40,
    )
)
def test_in_the_end_nothing_stays_expected(steps: list[tuple]) -> None:
    clock = Clock()
    demand, forgets = Demand(now=clock), []
    for what, *given_ in steps:
        if what == "expect":
            count, soon, lasts, key = given_
            forgets.append(demand.expect(count, clock.at + soon, lasts=lasts, key=key))
        elif what == "came":
            demand.arrived(given_[0])
        elif what == "forget" and given_[0] < len(forgets):
            forgets[given_[0]]()
        elif what == "wait":
            clock.at += given_[0]
        assert 0 <= demand.known(5.0) <= 15
    clock.at += 1_000
    assert demand.known() == 0


def test_a_day_of_demand_finds_a_warm_worker_nearly_always() -> None:
    arrivals = trace(hours=3)
    knowing, guessing = hit_rate(arrivals), hit_rate(arrivals, known=False)
    assert knowing.jobs == guessing.jobs == sum(len(arrival.seconds) for arrival in arrivals)
    assert knowing.hit_rate >= 0.99
    assert knowing.hit_rate >= guessing.hit_rate
    assert knowing.cold <= guessing.cold
