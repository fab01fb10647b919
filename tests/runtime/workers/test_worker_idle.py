"""A worker that has nothing to do does nothing."""

from __future__ import annotations

import os
import select

import pytest

from runtime.workers.inside import Capture, Job


@pytest.mark.parametrize("ended", [True, False])
def test_after_a_job_nothing_of_it_keeps_the_worker_awake(ended: bool) -> None:
    poll = select.poll()
    reading, writing = os.pipe()
    os.close(writing)
    poll.register(reading, select.POLLIN)
    job = Job.__new__(Job)
    job.poll, job.pidfd = poll, None
    capture = Capture(10)
    if ended:
        capture.read(reading)
        assert capture.closed
    job.captures = {reading: capture}
    job.close()
    assert poll.poll(0) == []
