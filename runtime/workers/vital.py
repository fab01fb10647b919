"""How a worker is, as it tells from inside: what it takes of its machine. Standard library only, like `inside.py`, which loads it."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import Any


class Vital:
    """What this worker takes of its machine. Read from its control group, or from its processes where it has none."""

    def __init__(self, scratch: list[str]) -> None:
        self.scratch = scratch
        self.at = time.monotonic()
        self.used = self.processor_time()

    def figures(self) -> dict[str, Any]:
        """Processors since the last time, and memory, processes and disk now."""
        now, used = time.monotonic(), self.processor_time()
        passed, self.at = now - self.at, now
        spent, self.used = used - self.used, used
        processes = read_number("pids/pids.current", "pids.current")
        memory = read_number("memory/memory.usage_in_bytes", "memory.current")
        return {
            "cpu": max(0.0, spent / passed) if passed > 0 else 0.0,
            "memory": used_memory() + private_memory("1") if memory is None else memory,
            "processes": sum(name.isdigit() for name in os.listdir("/proc")) if processes is None else processes,
            "disk": self.disk(),
        }

    def processor_time(self) -> float:
        nanoseconds = read_number("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        try:
            with open("/sys/fs/cgroup/cpu.stat") as lines:
                return int(lines.readline().split()[1]) / 1e6
        except (OSError, ValueError, IndexError):
            return sum(os.times()[:4])  # without what runs now: it counts when it has ended

    def disk(self) -> int:
        used = 0
        for folder in self.scratch:
            with contextlib.suppress(OSError):
                found = os.statvfs(folder)
                used += (found.f_blocks - found.f_bfree) * found.f_frsize
        return used


def read_number(*places: str) -> int | None:
    """The first of these files of the control group that there is."""
    for place in places:
        try:
            with open(f"/sys/fs/cgroup/{place}") as file:
                return int(file.read())
        except (OSError, ValueError):
            continue
    return None


def read_ooms() -> int:
    """How often the kernel killed a process of this container for want of memory."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as lines:
                for line in lines:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except OSError:
            continue
    return 0


def used_memory() -> int:
    """Private memory of all processes of the jobs, in bytes; for workers without a control group of their own."""
    return sum(private_memory(name) for name in os.listdir("/proc") if name.isdigit() and name != "1")


def private_memory(process: str) -> int:
    """What is this process's own, with its part of what forked processes still share."""
    try:
        with open(f"/proc/{process}/smaps_rollup") as lines:
            for line in lines:
                if line.startswith("Pss_Anon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has hidden itself, or is gone
    try:
        with open(f"/proc/{process}/statm") as statm:
            _, resident, shared, *_ = statm.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()
