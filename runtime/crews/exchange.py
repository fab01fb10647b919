"""Where a crew's members meet: every message is checked, counted and stamped with who sent it before anybody gets it.

Members say what they want to say, and nothing about themselves: crew, sender, role and time are written by us. A member that
is too slow to read loses its oldest messages and nobody else's; one that says too much is told to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from jsonschema.protocols import Validator

from nodes.errors import FactoryError, NotFound, TooMany
from nodes.ids import new_id
from nodes.rules import problems_of, rules_of
from runtime.crews.bus import CrewBus, Told
from runtime.crews.manifest import KIB, CrewManifest

MESSAGE_LIMIT: Final = 64 * KIB
VALUE_LIMIT: Final = 256 * KIB
FILE_LIMIT: Final = 1024 * KIB
SHELF_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "values": (1_000, 4 * 1024 * KIB),
    "files": (200, 16 * 1024 * KIB),
}
"""How many things a shelf holds, and how large they may be together."""
MOST_TASKS: Final = 10_000
TASKS_SIZE: Final = 16 * 1024 * KIB
"""Of all tasks of a crew that wait."""
MOST_TOPICS: Final = 64
INBOX: Final = 1_000
INBOX_SIZE: Final = 2 * 1024 * KIB
RATE: Final = 500.0
"""Calls a second of one member."""
BURST: Final = 1_000.0
LONGEST_REQUEST: Final = 300.0
SERVER: Final = "crew"
"""The sender of what the crew itself says."""

OnRequest = Callable[[str, Told], None]


class BadMessage(FactoryError):
    """What was said is not what may be said there."""

    code = "crew.message"
    status = 422


class NoAnswer(FactoryError):
    """A request was not answered."""

    code = "crew.no_answer"
    status = 504


class BudgetSpent(TooMany):
    """The crew has used up what its manifest allows."""

    code = "crew.budget"


@dataclass(slots=True, eq=False)
class Place:
    """One member as the others can reach it. `answers` takes requests for members that do not read by themselves."""

    id: str
    role: str
    state: str = "starting"
    answers: OnRequest | None = None
    topics: set[str] = field(default_factory=set)
    inbox: deque[Told] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0
    missed: int = 0
    tokens: float = BURST
    filled: float = field(default_factory=time.monotonic)

    def put(self, told: Told) -> None:
        """Something for it; the oldest goes when there is no more room."""
        self.inbox.append(told)
        self.size += told["size"]
        while len(self.inbox) > INBOX or self.size > INBOX_SIZE:
            self.take()
            self.missed += 1
        self.arrived.set()

    def take(self) -> Told:
        """The oldest."""
        told = self.inbox.popleft()
        self.size -= told["size"]
        return told


@dataclass(slots=True)
class _Asked:
    sender: str
    asked: str
    answer: asyncio.Future[Any]


class Exchange:
    """One crew's. Everything here is called for a member that has shown who it is."""

    def __init__(self, crew: str, manifest: CrewManifest, bus: CrewBus) -> None:
        self.crew = crew
        self.bus = bus
        self.places: dict[str, Place] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """How many messages went from one member to another; tasks count from who gave to who took them."""
        self.messages = 0
        self._manifest = manifest
        self._rules: dict[str, Validator] = {
            topic: rules_of(orjson.dumps(schema).decode()) for topic, schema in manifest.topics.items()
        }
        self._asked: dict[str, _Asked] = {}
        self._turns: Counter[str] = Counter()
        self._tasks = self._tasks_size = 0
        self._sizes: dict[str, dict[str, int]] = {"values": {}, "files": {}}

    async def open(self, seconds: float) -> None:
        """Begin to hear."""
        await self.bus.open(self.crew, self.hear, seconds=seconds)

    def join(self, place: Place) -> None:
        """A member can be reached from now on."""
        self.places[place.id] = place

    def part(self, member: str) -> None:
        """It cannot any more; who waits for its answer is told."""
        place = self.places.pop(member, None)
        for asked in [asked for asked in self._asked.values() if member in (asked.asked, asked.sender)]:
            if not asked.answer.done():
                asked.answer.set_exception(NoAnswer(f"“{place.role if place else member}” has left the crew."))
                asked.answer.exception()

    def pace(self, member: str) -> None:
        """Count a call. Raises TooMany when there were too many at once, NotFound when it is not in the crew any more."""
        place = self._place(member)
        now = time.monotonic()
        place.tokens = min(BURST, place.tokens + (now - place.filled) * RATE)
        place.filled = now
        if place.tokens < 1:
            raise TooMany(
                f"A member may ask the crew for {RATE:g} things a second.",
                code="crew.rate",
                fix="Do less at once: put several things into one message.",
            )
        place.tokens -= 1

    # --- messages

    async def publish(self, sender: str, topic: str, body: Any) -> int:
        """Tell the others who listen to the topic; how many they are."""
        size = _weigh(body, MESSAGE_LIMIT, "message")
        rules = self._rules.get(topic)
        if rules is not None and (problems := problems_of(rules, body)):
            raise BadMessage(
                f"This does not fit the topic “{topic}”: {problems[0]}", fix="Compare it with the topic's schema."
            )
        told = self._stamp(sender, "message", topic, body, size)
        heard = sum(topic in place.topics for id_, place in self.places.items() if id_ != sender)
        await self.bus.tell(self.crew, told)
        return heard

    def subscribe(self, member: str, topic: str) -> None:
        """Listen to a topic from now on."""
        topics = self._place(member).topics
        if topic not in topics and len(topics) >= MOST_TOPICS:
            raise TooMany(f"A member can listen to {MOST_TOPICS} topics.", code="crew.topics")
        topics.add(topic)

    async def next(self, member: str, seconds: float) -> Told | None:
        """The next message or request for a member, or None when none came in time."""
        place = self._place(member)
        until = time.monotonic() + seconds
        while not place.inbox:
            left = until - time.monotonic()
            if left <= 0:
                return None
            place.arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await place.arrived.wait()
            except TimeoutError:
                return None
        return place.take()

    async def request(self, sender: str, to: str, body: Any, seconds: float) -> Any:
        """Ask a member by id or role and wait for its answer. Raises NotFound, NoAnswer."""
        size = _weigh(body, MESSAGE_LIMIT, "request")
        asked = self._whom(sender, to)
        told = self._stamp(sender, "request", "", body, size) | {"to": asked.id}
        waiting = _Asked(sender, asked.id, asyncio.get_running_loop().create_future())
        self._asked[told["id"]] = waiting
        try:
            await self.bus.tell(self.crew, told)
            async with asyncio.timeout(min(seconds, LONGEST_REQUEST)):
                return await waiting.answer
        except TimeoutError:
            raise NoAnswer(f"“{asked.role}” did not answer within {seconds:g} seconds.") from None
        finally:
            self._asked.pop(told["id"], None)

    async def reply(self, sender: str, to: str, body: Any) -> None:
        """Answer a request that was put to this member; nobody else can, and it can do so once."""
        size = _weigh(body, MESSAGE_LIMIT, "answer")
        asked = self._asked.get(to)
        if asked is None or asked.asked != sender or asked.answer.done():
            raise NotFound("Nobody waits for this answer.", code="crew.no_request")
        await self.bus.tell(self.crew, self._stamp(sender, "reply", "", body, size) | {"to": asked.sender, "of": to})

    def refuse(self, told: Told, why: str) -> None:
        """A request comes to nothing."""
        asked = self._asked.get(told["id"])
        if asked is not None and not asked.answer.done():
            asked.answer.set_exception(NoAnswer(why))
            asked.answer.exception()

    def hear(self, told: Told) -> None:
        """Something came over the bus: give it to those it is for."""
        if told["crew"] != self.crew:
            return
        sender, kind = told["sender"], told["kind"]
        if kind == "message":
            for id_, place in self.places.items():
                if id_ != sender and told["topic"] in place.topics:
                    self.counts[sender, id_] += 1
                    place.put(told)
        elif kind == "request" and told["to"] in self.places:
            asked_one = self.places[told["to"]]
            self.counts[sender, asked_one.id] += 1
            if asked_one.answers is not None:
                asked_one.answers(asked_one.id, told)
            else:
                asked_one.put(told)
        elif kind == "reply" and (asked := self._asked.get(told["of"])) is not None and asked.asked == sender:
            self.counts[sender, asked.sender] += 1
            if not asked.answer.done():
                asked.answer.set_result(told["body"])

    # --- what they share

    async def set(self, shelf: str, key: str, value: Any, *, size: int = 0) -> None:
        """Keep a value or a file."""
        self._room_for(shelf, key, value, size)
        await self.bus.set(self.crew, shelf, key, value)

    async def swap(self, shelf: str, key: str, was: Any, value: Any) -> bool:
        """Keep a value if nobody changed it."""
        self._room_for(shelf, key, value, 0)
        return await self.bus.swap(self.crew, shelf, key, was, value)

    async def delete(self, shelf: str, key: str) -> None:
        """Remove a value or a file."""
        self._sizes[shelf].pop(key, None)
        await self.bus.delete(self.crew, shelf, key)

    async def push(self, sender: str, queue: str, body: Any) -> int:
        """Put a task into a queue."""
        size = _weigh(body, MESSAGE_LIMIT, "task")
        if self._tasks >= MOST_TASKS or self._tasks_size + size > TASKS_SIZE:
            raise TooMany(
                f"At most {MOST_TASKS:,} tasks of a crew can wait, {TASKS_SIZE // 1024 // KIB} MiB together.",
                code="crew.tasks",
                fix="Take some first.",
            )
        told = self._stamp(sender, "task", queue, body, size)
        self._tasks, self._tasks_size = self._tasks + 1, self._tasks_size + size
        return await self.bus.push(self.crew, queue, told)

    async def pop(self, member: str, queue: str, seconds: float) -> Told | None:
        """Take a task."""
        told = await self.bus.pop(self.crew, queue, seconds)
        if told is not None:
            # There may be more than were counted: on a server they outlive us.
            self._tasks, self._tasks_size = max(0, self._tasks - 1), max(0, self._tasks_size - told["size"])
            self.counts[str(told["sender"]), member] += 1
        return told

    # --- small things

    def _room_for(self, shelf: str, key: str, value: Any, size: int) -> None:
        known = self._sizes[shelf]
        if not size:
            size = _weigh(value, VALUE_LIMIT, "value")
        most, largest = SHELF_LIMITS[shelf]
        others = sum(known.values()) - known.get(key, 0)
        if (key not in known and len(known) >= most) or others + size > largest:
            raise TooMany(
                f"A crew shares at most {most:,} {shelf}, {largest // 1024 // KIB} MiB together.",
                code="crew.shared",
                fix="Delete what nobody needs any more.",
            )
        known[key] = size

    def _stamp(self, sender: str, kind: str, topic: str, body: Any, size: int) -> Told:
        if sender != SERVER:
            if self.messages >= self._manifest.budgets.messages:
                raise BudgetSpent(
                    f"The crew has said all of the {self._manifest.budgets.messages:,} messages that it may.",
                    fix="Allow more in the budgets of its manifest.",
                )
            self.messages += 1
        role = SERVER if sender == SERVER else self._place(sender).role
        return {
            "id": new_id("msg"),
            "kind": kind,
            "crew": self.crew,
            "sender": sender,
            "role": role,
            "topic": topic,
            "body": body,
            "size": size,
            "at": time.time(),
        }

    def _place(self, member: str) -> Place:
        place = self.places.get(member)
        if place is None:
            raise NotFound("This member is not in the crew any more.", code="crew.left")
        return place

    def _whom(self, sender: str, to: str) -> Place:
        """The member with this id, or in turn one of those with this role, but not who asks."""
        if to in self.places and to != sender:
            return self.places[to]
        able = [place for id_, place in sorted(self.places.items()) if place.role == to and id_ != sender]
        if not able:
            raise NotFound(f"No other member is called “{to}” or has that role.", code="crew.nobody")
        self._turns[to] += 1
        return able[(self._turns[to] - 1) % len(able)]


def _weigh(value: Any, limit: int, what: str) -> int:
    try:
        size = len(orjson.dumps(value))
    except (TypeError, ValueError):
        raise BadMessage(f"This {what} cannot be written as JSON.") from None
    if size > limit:
        raise BadMessage(f"A {what} may be at most {limit // KIB} KiB, and this one is {size // KIB} KiB.")
    return size
