"""The lives of crews and members as tables: every state leads to an end, and health is one word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from runtime.crews.states import CREW, ENDED, MEMBER, CrewState, MemberState, MemberView, health_of
from runtime.states import ForbiddenMove, ends, move
from storage import crew as rows


@pytest.mark.parametrize("table", [CREW, MEMBER])
def test_every_state_is_there_and_leads_to_an_end(table: Mapping[Any, frozenset[Any]]) -> None:
    assert set(table) == set(type(next(iter(table))))
    leading = set(ends(table))
    for _ in table:
        leading |= {state for state, after in table.items() if after & leading}
    assert leading == set(table)


def test_what_the_rows_call_live_is_what_has_not_ended() -> None:
    assert set(rows.LIVE) == {str(state) for state in CREW if state not in ends(CREW)}
    assert ends(MEMBER) == ENDED
    with pytest.raises(ForbiddenMove):
        move(CREW, CrewState.STOPPED, CrewState.RUNNING)


def member(state: MemberState, worker: str | None = "busy") -> MemberView:
    return MemberView("m1", "a", "code", "small", state, "", 0.0, 0, "w", worker, None, None, None)


@pytest.mark.parametrize(
    ("state", "members", "health"),
    [
        (CrewState.RUNNING, [member(MemberState.RUNNING)], "ok"),
        (CrewState.RUNNING, [member(MemberState.RUNNING), member(MemberState.DONE)], "ok"),
        (CrewState.RUNNING, [member(MemberState.RUNNING), member(MemberState.STARTING)], "degraded"),
        (CrewState.RUNNING, [member(MemberState.RUNNING), member(MemberState.FAILED)], "degraded"),
        (CrewState.RUNNING, [member(MemberState.RUNNING, "unhealthy")], "down"),
        (CrewState.PAUSED, [member(MemberState.STARTING)], "down"),
        (CrewState.ASSEMBLING, [member(MemberState.STARTING)], "ok"),
        (CrewState.FAILED, [member(MemberState.FAILED)], ""),
    ],
)
def test_health_is_one_word(state: CrewState, members: list[MemberView], health: str) -> None:
    assert health_of(state, tuple(members)) == health
