"""Whatever happens to a pool and whoever uses it, in whatever order: nothing is lost, nothing is leaked, tenants stay apart."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from runtime.workers.backend import NoWorker, Profile
from runtime.workers.pool import AT_ONCE
from runtime.workers.states import WORKER, WorkerState
from runtime.workers.views import Moved
from tests.runtime.workers.in_memory import Engine, QuickLoop, QuickWorker, job, pool_in_memory

CEILING = 5
TENANTS = st.sampled_from(["acme", "globex", "initech"])
ENDED = {WorkerState.UNHEALTHY, WorkerState.DRAINING, WorkerState.GONE}


class PoolMachine(RuleBasedStateMachine):
    """A pool of at most five workers that are used, killed, held, replaced and put to sleep."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.loop = QuickLoop()
        self.engine = Engine()
        self.tenants: dict[str, set[str]] = {}
        self.jobs: dict[str, asyncio.Task[object]] = {}
        self.lives: Counter[str] = Counter()
        self.born: set[str] = set()
        self.holding: list[QuickWorker] = []
        self.number = 0
        self.run(self._open())

    def run(self, work):
        return self.loop.run_until_complete(work)

    def do(self, what, *given) -> None:
        async def inside() -> None:
            what(*given)

        self.run(inside())

    async def _open(self) -> None:
        self.pool = pool_in_memory(self.engine, size=2, ceiling=CEILING, ttl=20.0, forget_after=3.0, patience=0.2)
        self.pool.on_change(self._moved)
        await self.pool.start()

    def _moved(self, moved: Moved) -> None:
        if moved.before is None:
            assert moved.after is WorkerState.PROVISIONING and moved.worker not in self.born
            self.born.add(moved.worker)
            return
        assert moved.after in WORKER[moved.before]
        self.lives[moved.after] += 1
        if moved.tenant:
            self.tenants.setdefault(moved.worker, set()).add(moved.tenant)

    def workers(self, *states: WorkerState) -> list[QuickWorker]:
        return [worker for worker in self.pool.workers.values() if worker.state in states]

    def one_of(self, dice: int, *states: WorkerState) -> QuickWorker | None:
        found = self.workers(*states)
        return found[dice % len(found)] if found else None

    @rule(tenant=TENANTS, seconds=st.sampled_from([0.01, 0.2, 5.0]), many=st.integers(1, 4), retries=st.integers(0, 2))
    def jobs_come(self, tenant: str, seconds: float, many: int, retries: int) -> None:
        for _ in range(many):
            self.number += 1
            work = self.pool.run(job(f"j{self.number}", seconds, retries=retries), tenant=tenant)
            self.jobs[f"j{self.number}"] = self.loop.create_task(work)
        self.run(asyncio.sleep(0))

    @rule(dice=st.integers(0, 99))
    def a_caller_goes_away(self, dice: int) -> None:
        if going := [task for task in self.jobs.values() if not task.done()]:
            going[dice % len(going)].cancel()
            self.run(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.5, 2.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(dice=st.integers(0, 99))
    def a_worker_dies(self, dice: int) -> None:
        if worker := self.one_of(dice, WorkerState.READY, WorkerState.BUSY):
            self.do(worker.die)

    @rule()
    def a_start_will_fail(self) -> None:
        self.engine.failing += 1

    @rule(dice=st.integers(0, 99), what=st.sampled_from(["drain", "restart", "retire"]))
    def somebody_ends_one(self, dice: int, what: str) -> None:
        if worker := self.one_of(dice, *set(WorkerState) - {WorkerState.GONE}):
            self.do(getattr(self.pool, what), worker)

    @rule(dice=st.integers(0, 99))
    def one_hibernates(self, dice: int) -> None:
        if worker := self.one_of(dice, WorkerState.READY):
            self.run(self.pool.sleep(worker))

    @rule(target=held, tenant=TENANTS)
    def a_crew_holds_one(self, tenant: str) -> QuickWorker | None:
        holding = self.loop.create_task(self.pool.hold(tenant, crew="crew", member="m"))
        self.run(asyncio.wait([holding], timeout=20.0))
        if not holding.done():
            holding.cancel()
            self.run(asyncio.wait([holding]))
            return None
        worker = holding.result()
        self.holding.append(worker)
        return worker

    @rule(worker=held)
    def a_member_works(self, worker: QuickWorker | None) -> None:
        if worker is not None and worker in self.pool.held:
            assert self.run(self.pool.run_held(worker, job("held", 0.1))).ok == (worker.id in self.engine.running)

    @rule(worker=held)
    def a_member_leaves(self, worker: QuickWorker | None) -> None:
        if worker is not None:
            self.do(self.pool.let_go, worker)
            self.holding = [one for one in self.holding if one is not worker]

    @rule()
    def there_is_a_new_image(self) -> None:
        self.do(self.pool.renew, Profile(image="data"))

    @rule(many=st.integers(0, 9), soon=st.floats(0, 5))
    def more_is_expected(self, many: int, soon: float) -> None:
        self.pool.demand.expect(many, self.loop.time() + soon, lasts=5.0)

    @invariant()
    def it_counts_what_there_is(self) -> None:
        stats, states = self.pool.view(), Counter(worker.state for worker in self.pool.workers.values())
        assert (stats.ready, stats.busy, stats.hibernating) == (
            states[WorkerState.READY],
            states[WorkerState.BUSY],
            states[WorkerState.HIBERNATING],
        )
        assert stats.starting == states[WorkerState.PROVISIONING] + states[WorkerState.WARMING]
        assert self.engine.boxes <= self.pool.workers.keys()
        assert stats.ready + stats.busy + stats.starting - stats.held <= CEILING + AT_ONCE

    @invariant()
    def a_worker_has_one_tenant(self) -> None:
        assert all(len(of) == 1 for of in self.tenants.values()), self.tenants

    @invariant()
    def what_is_held_stays_with_its_holder(self) -> None:
        for worker in self.holding:
            assert (worker in self.pool.held) == (worker.state is WorkerState.BUSY and worker.crew == "crew")
            assert worker in self.pool.held or worker.state in ENDED

    def teardown(self) -> None:
        self.engine.failing = 0
        for worker in self.holding:
            self.do(self.pool.let_go, worker)
        self.run(asyncio.sleep(1_000))  # longer than the longest pause between two starts
        for name, task in self.jobs.items():
            assert task.done(), f"{name} never ended"
            if not task.cancelled():
                assert task.exception() is None, task.exception()
                done = task.result()
                assert done.value.partition(".")[0] == name if done.ok else done.error.kind == "worker_lost"
        stats = self.pool.view()
        assert (stats.busy, stats.waiting, stats.held) == (0, 0, 0)
        assert stats.ready >= 2, "it has healed"
        # Every worker that is ready can be had: none is ready and in nobody's hands.
        fresh = [worker for worker in self.workers(WorkerState.READY) if worker.tenant is None]
        tasks = [self.loop.create_task(self.pool.run(job(f"x{n}", 1.0), tenant="new")) for n, _ in enumerate(fresh)]
        self.run(asyncio.sleep(0))
        assert all(worker.state is WorkerState.BUSY for worker in fresh)
        self.run(asyncio.sleep(2))
        assert all(task.done() for task in tasks)
        self.run(self.pool.stop())
        assert not self.pool.workers and not self.engine.boxes and not self.engine.running
        assert self.loop.run_until_complete(_refused(self.pool))
        self.loop.close()


async def _refused(pool) -> bool:
    try:
        await pool.run(job("late"), tenant="acme")
    except NoWorker:
        return True
    return False


PoolMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, phases=set(Phase) - {Phase.explain}
)
test_a_pool_keeps_its_accounts = PoolMachine.TestCase
