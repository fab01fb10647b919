"""What a crew at work is made of: its members in their seats, and the tools that all crews of a server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runtime.crews.bus import CrewBus
from runtime.crews.door import Door
from runtime.crews.manifest import MemberSpec
from runtime.crews.states import MEMBER, MemberState
from runtime.crews.tokens import Bond, Tokens
from runtime.egress import Egress
from runtime.fleet import Fleet, Held
from runtime.runs import Runs
from runtime.states import move

if TYPE_CHECKING:
    from runtime.crews.live import LiveCrew


class Keep(Protocol):
    """Makes what a crew has become durable, and tells who watches."""

    async def __call__(
        self, crew: LiveCrew, what: str, *, by: str, member: str | None = None, why: str = ""
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What crews work with."""

    fleet: Fleet
    runs: Runs
    egress: Egress
    bus: CrewBus
    tokens: Tokens
    keep: Keep
    changed: Callable[[LiveCrew], None]


@dataclass(slots=True, eq=False)
class Member:
    """A seat, and who has it."""

    id: str
    spec: MemberSpec
    state: MemberState = MemberState.STARTING
    why: str = ""
    since: float = field(default_factory=time.time)
    restarts: int = 0
    run_id: str | None = None
    result: Any = None
    held: Held | None = None
    door: Door | None = None
    bond: Bond | None = None
    token: str = ""
    task: asyncio.Task[None] | None = None

    @property
    def lasts(self) -> bool:
        """Whether it never ends by itself."""
        return self.spec.starts == "on request"

    def move(self, to: MemberState, why: str = "") -> None:
        """Go on in life."""
        self.state, self.why, self.since = move(MEMBER, self.state, to), why, time.time()
