"""Crews as rows and as people see them: nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from runtime.crews.live import LiveCrew
from runtime.crews.seats import Member
from runtime.crews.states import CrewView, MemberView, Said, Spent, health_of
from runtime.fleet import WorkerView
from storage import crew as rows


def live_view(crew: LiveCrew, workers: Sequence[WorkerView]) -> CrewView:
    """A crew that is at work here."""
    known = {worker.id: worker for worker in workers}
    members = tuple(_member_view(member, known) for member in crew.members.values())
    state = str(crew.state)
    return CrewView(
        id=crew.id,
        name=crew.manifest.id,
        state=state,
        health=health_of(state, members),
        why=crew.why,
        by=crew.who.name,
        created_at=crew.created_at,
        ended_at=time.time() if crew.over.is_set() else None,
        epoch=crew.epoch,
        bus=crew.tools.bus.address,
        members=members,
        said=tuple(Said(one, other, count) for (one, other), count in sorted(crew.exchange.counts.items())),
        spent=Spent(time.monotonic() - crew.began, crew.exchange.messages, crew.way.calls, crew.way.bytes),
        budgets=crew.manifest.budgets.model_dump(),
        network=crew.manifest.network.allow,
    )


def member_row(crew: LiveCrew, member: Member) -> rows.CrewMember:
    """A member as its row."""
    return rows.CrewMember(
        crew_id=crew.id,
        id=member.id,
        role=member.spec.role,
        state=str(member.state),
        why=member.why,
        spec=member.spec.model_dump(mode="json"),
        worker=member.held.id if member.held is not None else None,
        run_id=member.run_id,
        restarts=member.restarts,
        result=member.result,
        since=member.since,
    )


def _member_view(member: Member, workers: Mapping[str, WorkerView]) -> MemberView:
    worker = workers.get(member.held.id) if member.held is not None else None
    return MemberView(
        id=member.id,
        role=member.spec.role,
        kind="code" if member.spec.code is not None else "blueprint",
        tier=member.spec.tier,
        state=str(member.state),
        why=member.why,
        since=member.since,
        restarts=member.restarts,
        worker=member.held.id if member.held is not None else None,
        worker_state=str(worker.state) if worker is not None else None,
        vital=worker.vital if worker is not None else None,
        run_id=member.run_id,
        result=member.result,
    )


def old_view(row: rows.Crew, members: Sequence[rows.CrewMember]) -> CrewView:
    """A crew out of its rows: one that has ended, or that another server has."""
    seen = tuple(
        MemberView(
            id=one.id,
            role=one.role,
            kind="code" if (one.spec or {}).get("code") is not None else "blueprint",
            tier=(one.spec or {}).get("tier", "small"),
            state=one.state,
            why=one.why,
            since=one.since,
            restarts=one.restarts,
            worker=one.worker,
            worker_state=None,
            vital=None,
            run_id=one.run_id,
            result=one.result,
        )
        for one in members
    )
    manifest = row.manifest or {}
    return CrewView(
        id=row.id,
        name=row.name,
        state=row.state,
        health=health_of(row.state, seen),
        why=row.why,
        by=row.by_name,
        created_at=row.created_at,
        ended_at=row.ended_at,
        epoch=row.epoch,
        bus="",
        members=seen,
        said=(),
        spent=Spent((row.ended_at or time.time()) - row.created_at, 0, 0, 0),
        budgets=manifest.get("budgets", {}),
        network=tuple(manifest.get("network", {}).get("allow", ())),
    )
