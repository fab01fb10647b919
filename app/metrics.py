"""What Prometheus reads: the fleet in figures, made when it asks. No figure names a team or a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runtime.workers.states import AT_WORK

if TYPE_CHECKING:
    from runtime.crews.states import CrewFigures
    from runtime.factory import Factory
    from runtime.fleet import FleetView, Vital
    from runtime.policy import Actor

_LEVELS = {
    "target": "Workers that are to be warm.",
    "ready": "Workers that are warm and free.",
    "busy": "Workers that have a job.",
    "held": "Workers held by members of crews.",
    "starting": "Workers on their way.",
    "hibernating": "Workers asleep.",
    "waiting": "Jobs that wait for a worker.",
    "hit_rate": "The share of jobs that found a warm worker at once.",
    "demand": "Jobs a second, as forecast.",
}
_SUMS = {
    "jobs": "Jobs begun.",
    "lost": "Workers lost.",
    "restarts": "Workers that took the place of one that was lost or restarted.",
}
_HOSTS = {
    "cpus": "Processors of an engine.",
    "memory": "Bytes of memory of an engine.",
    "reserved_cpus": "Processors that its workers may use.",
    "reserved_memory": "Bytes of memory that its workers may use.",
    "workers": "Workers on an engine.",
}


def exposition(factory: Factory, who: Actor) -> tuple[bytes, str]:
    """The text and its content type. Raises Denied."""
    seen = factory.fleet_desk.figures(who)
    registry = CollectorRegistry(auto_describe=False)
    moves, crews = _moves(factory.fleet_desk.moves), _crews(factory.crews.figures(who))
    registry.register(_Now([*_pools(seen), *_hosts(seen), *_workers(seen), moves, *crews]))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Now:
    """A collector of figures that are there already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def _pools(seen: FleetView) -> Iterator[Metric]:
    for name, words in _LEVELS.items():
        level = GaugeMetricFamily(f"factory_pool_{name}", words, labels=("profile",))
        for pool in seen.pools:
            level.add_metric((pool.profile,), getattr(pool, name))
        yield level
    for name, words in _SUMS.items():
        total = CounterMetricFamily(f"factory_pool_{name}", words, labels=("profile",))
        for pool in seen.pools:
            total.add_metric((pool.profile,), getattr(pool, name))
        yield total
    starts = GaugeMetricFamily(
        "factory_worker_start_milliseconds", "From nothing to ready.", labels=("profile", "quantile")
    )
    for pool in seen.pools:
        for quantile, value in (("0.5", pool.starts_p50), ("0.95", pool.starts_p95)):
            if value is not None:
                starts.add_metric((pool.profile, quantile), value)
    yield starts


def _hosts(seen: FleetView) -> Iterator[Metric]:
    for name, words in _HOSTS.items():
        figure = GaugeMetricFamily(f"factory_host_{name}", words, labels=("host", "state"))
        for host in seen.hosts:
            figure.add_metric((host.name, host.state), getattr(host, name))
        yield figure


def _workers(seen: FleetView) -> Iterator[Metric]:
    states = GaugeMetricFamily("factory_workers", "Workers by state.", labels=("profile", "host", "state"))
    counted = Counter((one.profile, one.host, one.state.value) for one in seen.workers)
    for labels, number in sorted(counted.items()):
        states.add_metric(labels, number)
    yield states
    cpus = GaugeMetricFamily(
        "factory_worker_cpus", "Processors that workers use, together.", labels=("profile", "host")
    )
    memory = GaugeMetricFamily(
        "factory_worker_memory_bytes", "Memory that workers use, together.", labels=("profile", "host")
    )
    used: dict[tuple[str, str], list[Vital]] = {}
    for one in seen.workers:
        if one.vital is not None and one.state in AT_WORK:
            used.setdefault((one.profile, one.host), []).append(one.vital)
    for where, vital in sorted(used.items(), key=lambda item: item[0]):
        cpus.add_metric(where, sum(one.cpu for one in vital))
        memory.add_metric(where, sum(one.memory for one in vital))
    yield from (cpus, memory)


def _crews(seen: CrewFigures) -> Iterator[Metric]:
    for name, words, levels in (
        ("factory_crews", "Crews at work by state.", seen.at_work),
        ("factory_crew_members", "Members of crews at work by state.", seen.members),
    ):
        level = GaugeMetricFamily(name, words, labels=("state",))
        for state, number in sorted(levels.items()):
            level.add_metric((state,), number)
        yield level
    ended = CounterMetricFamily("factory_crews_ended", "Crews that have ended, by how.", labels=("state",))
    for state, number in sorted(seen.ended.items()):
        ended.add_metric((state,), number)
    yield ended
    yield CounterMetricFamily(
        "factory_crew_messages", "Messages, requests, answers and tasks of members.", value=seen.messages
    )


def _moves(moves: Counter[tuple[str, str]]) -> Metric:
    total = CounterMetricFamily(
        "factory_worker_moves", "How often workers came into a state.", labels=("profile", "state")
    )
    for labels, number in sorted(moves.items()):
        total.add_metric(labels, number)
    return total
