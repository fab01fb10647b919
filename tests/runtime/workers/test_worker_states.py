"""The life of a worker: what may follow what."""

import pytest

from runtime.states import ForbiddenMove, ends, move
from runtime.workers.states import WORKER, WorkerState


@pytest.mark.parametrize("now", WorkerState)
@pytest.mark.parametrize("to", WorkerState)
def test_a_worker_moves_only_along_the_table(now, to):
    if to in WORKER[now]:
        assert move(WORKER, now, to) is to
    else:
        with pytest.raises(ForbiddenMove):
            move(WORKER, now, to)


@pytest.mark.parametrize("state", WorkerState)
def test_every_life_can_end(state):
    seen, reached = set(), {state}
    while reached - seen:
        seen |= reached
        reached = {after for one in seen for after in WORKER[one]}
    assert ends(WORKER) == {WorkerState.GONE}
    assert WorkerState.GONE in seen
