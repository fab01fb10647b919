"""The blueprints that are open in this process, one session each, and the keeping of what is drawn in them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from app.canvas.session import Editor, GraphSession, Limit, Saving
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.errors import Conflict, FactoryError

log = structlog.get_logger()

Load = Callable[[Any, str], Awaitable[tuple[Blueprint, int]]]
"""`(who, blueprint id)` gives the draft and its stored revision; raises when that person may not see it."""
Save = Callable[[Any, str, Blueprint, int], Awaitable[int]]
"""`(who, blueprint id, draft, revision it was read at)` gives the new stored revision; raises Conflict when stale."""

LONGEST_PAUSE: Final = 30.0
_ELSEWHERE: Final = (
    "This agent was changed elsewhere since you opened it (a version was restored, or another program wrote it)."
)


class NotSaved(FactoryError):
    """The newest state of a draft could not be stored yet."""

    code = "canvas.not_saved"
    status = 503


@dataclass(slots=True)
class Autosave:
    """Keeps the newest state of one document: one write at a time, many gestures in one write, again after a failure."""

    write: Callable[[Any, Blueprint, int], Awaitable[int]]
    revision: int
    report: Callable[[Saving], None]
    first_pause: float = 0.5
    _newest: tuple[Any, Blueprint] | None = None
    _task: asyncio.Task[None] | None = None
    _stuck: bool = False
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _failed: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, blueprint: Blueprint, who: Any) -> None:
        """There is a newer state to keep."""
        self._newest = (who, blueprint)
        self._awake.set()
        if not self._stuck and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._keep())

    @property
    def idle(self) -> bool:
        """Whether everything is kept."""
        return self._newest is None

    async def flush(self) -> bool:
        """Wait until all is kept, or until the next try has failed; whether all is kept."""
        if self._task is None or self._task.done():
            return self.idle
        self._failed.clear()
        self._awake.set()
        failed = asyncio.get_running_loop().create_task(self._failed.wait())
        await asyncio.wait({self._task, failed}, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        return self.idle

    def go_on(self, revision: int) -> None:
        """Write again after a conflict, over the state stored as that revision."""
        self.revision, self._stuck = revision, False
        if self._newest is not None:
            who, blueprint = self._newest
            self.changed(blueprint, who)

    def drop(self, revision: int) -> None:
        """Forget what could not be written: the stored state was taken instead."""
        self._newest, self.revision, self._stuck = None, revision, False
        self.report(Saving("saved"))

    async def _keep(self) -> None:
        pause = self.first_pause
        while self._newest is not None:
            who, blueprint = self._newest
            self.report(Saving("saving"))
            try:
                self.revision = await self.write(who, blueprint, self.revision)
            except Conflict:
                self._stuck = True
                self.report(Saving("conflict", _ELSEWHERE))
                return
            except Exception as error:  # a full disk, a lost database: the drawing stays here and is written later
                log.warning("a draft could not be saved", error=repr(error))
                said = (
                    error.message
                    if isinstance(error, FactoryError)
                    else "the place where agents are kept did not answer."
                )
                self.report(
                    Saving("failing", f"Not saved yet: {said} Your changes are kept here, and it is tried again.")
                )
                self._failed.set()
                self._awake.clear()
                try:
                    await asyncio.wait_for(self._awake.wait(), pause)
                except TimeoutError:
                    pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = self.first_pause
            if self._newest is not None and self._newest[1] is blueprint:
                self._newest = None
        self.report(Saving("saved"))


@dataclass(slots=True)
class _Open:
    session: GraphSession
    autosave: Autosave
    dropping: asyncio.TimerHandle | None = None


class Sessions:
    """One session for each open blueprint, shared by all its tabs and people. The application owns one of these."""

    def __init__(
        self,
        load: Load,
        save: Save,
        *,
        types: Catalog | None = None,
        limit: Limit | None = None,
        linger: float = 60.0,
    ) -> None:
        self._load = load
        self._save = save
        self._types = types
        self._limit = limit
        self._linger = linger
        self._open: dict[str, _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, who: Any, blueprint_id: str) -> GraphSession:
        """The session of that blueprint. `load` is asked each time, so it decides who may open it."""
        blueprint, revision = await self._load(who, blueprint_id)
        opened = self._open.get(blueprint_id)
        if opened is None:
            opened = self._open[blueprint_id] = self._start(blueprint_id, blueprint, revision)
        elif revision > opened.autosave.revision and opened.autosave.idle:
            opened.autosave.drop(revision)
            opened.session.replace(blueprint, "This agent was changed elsewhere; you see its newest state.")
        self._drop_later(blueprint_id)
        return opened.session

    async def keep_mine(self, who: Any, blueprint_id: str) -> None:
        """End a conflict: write what is on the canvas over what was stored meanwhile."""
        _, revision = await self._load(who, blueprint_id)
        self._open[blueprint_id].autosave.go_on(revision)

    async def take_theirs(self, who: Any, blueprint_id: str, said: str = "The stored version was loaded.") -> None:
        """End a conflict, or follow a restored version: show what is stored to everybody who has it open."""
        blueprint, revision = await self._load(who, blueprint_id)
        opened = self._open.get(blueprint_id)
        if opened is not None:
            opened.autosave.drop(revision)
            opened.session.replace(blueprint, said)

    async def flush(self, blueprint_id: str) -> int | None:
        """Wait until a blueprint's draft is stored, before it is deployed; its stored revision, None if it is not open.

        Raises NotSaved when it could not be stored.
        """
        opened = self._open.get(blueprint_id)
        if opened is None:
            return None
        if not await opened.autosave.flush():
            raise NotSaved(
                opened.session.saving.sentence or "Your last changes are not saved yet.", fix="Try again in a moment."
            )
        return opened.autosave.revision

    async def close(self) -> None:
        """Keep everything and let go of it; called when the application stops."""
        for opened in self._open.values():
            if opened.dropping is not None:
                opened.dropping.cancel()
        await asyncio.gather(*(opened.autosave.flush() for opened in self._open.values()), *self._closing)
        self._open.clear()

    def _start(self, blueprint_id: str, blueprint: Blueprint, revision: int) -> _Open:
        async def write(who: Any, newest: Blueprint, at: int) -> int:
            return await self._save(who, blueprint_id, newest, at)

        def changed(newest: Blueprint, _: int, editor: Editor) -> None:
            autosave.changed(newest, editor.who)

        session = GraphSession(
            blueprint,
            id=blueprint_id,
            types=self._types,
            on_change=changed,
            on_empty=partial(self._drop_later, blueprint_id),
            limit=self._limit,
        )
        autosave = Autosave(write, revision, session.report)
        return _Open(session, autosave)

    def _drop_later(self, blueprint_id: str) -> None:
        """Nobody may have it open: if that stays so, a page that is loaded again finds its history for a while."""
        opened = self._open.get(blueprint_id)
        if opened is None:
            return
        if opened.dropping is not None:
            opened.dropping.cancel()
        loop = asyncio.get_running_loop()
        opened.dropping = loop.call_later(self._linger, self._drop, blueprint_id)

    def _drop(self, blueprint_id: str) -> None:
        opened = self._open.get(blueprint_id)
        if opened is None or opened.session.editors:
            return
        task = asyncio.get_running_loop().create_task(self._flush_and_drop(blueprint_id, opened))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _flush_and_drop(self, blueprint_id: str, opened: _Open) -> None:
        if not await opened.autosave.flush():
            self._drop_later(blueprint_id)  # what is not stored is not let go of
        elif not opened.session.editors and self._open.get(blueprint_id) is opened:
            del self._open[blueprint_id]
