"""The watchdog in virtual time: who hangs is seen in time, who is well is never blamed, and those that die at birth are not raced."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runtime.workers.watchdog import Backoff, Pulse, Watch, Watchdog, WatchRules

RULES = WatchRules()


@dataclass
class Someone:
    """A worker in virtual time: it beats and answers as long as it does not hang."""

    working: bool = False
    hangs: bool = False
    pulse: Pulse = field(default_factory=Pulse)
    asked: bool = False
    beat_at: float = RULES.beat

    def ping(self) -> None:
        self.asked = True

    def live(self, now: float) -> None:
        """What it does until now: everything that it says arrives before we look."""
        if self.hangs:
            return
        if self.asked or now >= self.beat_at:
            self.pulse.fresh = True
        if now >= self.beat_at:
            self.beat_at = now + RULES.beat
        self.asked = False


class VirtualTime(RuleBasedStateMachine):
    """Workers hang, go on, get and end jobs, while the server looks, or stands still for any time."""

    @initialize(count=st.integers(1, 5))
    def begin(self, count: int) -> None:
        self.now = 0.0
        self.workers = [Someone() for _ in range(count)]
        self.blamed: list[Someone] = []
        self.hung: dict[int, float] = {}
        self.dog = Watchdog(RULES, lambda: self.workers, self.blamed.append, now=lambda: self.now)

    def pass_(self, seconds: float, counted: float) -> None:
        self.now += seconds
        for worker in self.workers:
            worker.live(self.now)
        self.dog.look()
        for number in self.hung:
            self.hung[number] += counted

    @rule(looks=st.integers(1, 40))
    def time_goes_by(self, looks: int) -> None:
        for _ in range(looks):
            self.pass_(RULES.ping, RULES.ping)

    @rule(seconds=st.floats(1.0, 1_000.0))
    def the_server_stands_still(self, seconds: float) -> None:
        self.pass_(seconds, 0.0)
        for number in self.hung:
            self.hung[number] = min(self.hung[number], 0.0)  # what it knew of their silence is not held against them

    @rule(number=st.integers(0, 4), working=st.booleans())
    def a_job_begins_or_ends(self, number: int, working: bool) -> None:
        worker = self.workers[number % len(self.workers)]
        if not worker.hangs:
            worker.working = working

    @rule(number=st.integers(0, 4))
    def one_hangs(self, number: int) -> None:
        number %= len(self.workers)
        self.workers[number].hangs = True
        self.hung.setdefault(number, 0.0)

    @invariant()
    def nobody_is_blamed_who_is_well(self) -> None:
        assert all(worker.hangs for worker in self.blamed)

    @invariant()
    def who_hangs_is_seen_in_time(self) -> None:
        for number, seconds in self.hung.items():
            worker = self.workers[number]
            limit = RULES.hang_seen_within if worker.working else RULES.idle_hang_seen_within
            if seconds > limit + RULES.ping + 1e-6:
                assert worker in self.blamed, f"it hangs for {seconds} s"


TestVirtualTime = VirtualTime.TestCase
TestVirtualTime.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_promised_times():
    assert RULES.hang_seen_within <= 1.8
    assert RULES.idle_hang_seen_within <= 30
    assert WatchRules(beat=60).idle_hang_seen_within <= 30.5, "the ceiling holds whatever is set"


@given(st.lists(st.floats(0.0, 10_000.0), min_size=1, max_size=50))
def test_a_server_that_is_always_late_blames_nobody(lates):
    watch, pulse, now = Watch(RULES, 0.0), Pulse(), 0.0
    for late in lates:
        now += 2 * RULES.ping + 0.01 + late
        assert not watch.look(now)
        assert watch.judge(pulse, True) != "unhealthy"
    assert watch.stalls == len(lates)


def test_a_clock_that_goes_back_does_no_harm():
    watch, pulse = Watch(RULES, 100.0), Pulse()
    for now in (50.0, 20.0, 20.1, 0.0):
        watch.look(now)
        watch.judge(pulse, False)
    assert pulse.quiet <= RULES.ping


# --- back-off


@given(st.lists(st.tuples(st.floats(0, 400), st.sampled_from(["failed", "lived", "old lived"])), max_size=60))
def test_pauses_double_from_one_second_to_five_minutes(happenings):
    backoff, now, failures = Backoff(), 0.0, 0
    for passed, what in happenings:
        now += passed
        if what == "failed":
            failures += now >= backoff.due
            backoff.failed(now, "it died.")
            assert backoff.failures == failures
            assert 0 <= backoff.wait(now) <= backoff.pause == min(300.0, 2.0 ** (failures - 1))
        elif what == "lived":
            backoff.lived(now + 0.001)
            failures = 0
            assert backoff.wait(now) == 0
        else:
            backoff.lived(-1.0)  # one from before the failures proves nothing
            if failures:
                assert backoff.failures == failures
        assert backoff.looping == (failures >= 5) == (backoff.words(now) is not None)


def test_many_that_fail_at_once_count_as_one():
    backoff = Backoff()
    for _ in range(10):
        backoff.failed(5.0, "no room")
    assert (backoff.failures, backoff.wait(5.0)) == (1, 1.0)


def test_a_crash_loop_is_said_in_words():
    backoff, now = Backoff(), 0.0
    for _ in range(5):
        now = max(now, backoff.due)
        backoff.failed(now, "it died.")
    assert backoff.words(now) == (
        "New workers do not live: 5 times in a row, the last time because: it died. The next try is in 16 s."
    )
