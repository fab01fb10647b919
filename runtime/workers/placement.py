"""On which engine a worker goes: best fit, the largest first, and the members of one crew apart from each other.

Nothing here knows what an engine is: hosts have so much processor and memory, and things reserve some of both. What is reserved
never exceeds what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

GRAIN: Final = 1e-9  # sums of fractions of processors are not exact


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that reserves a part of a host. Things of one `crew` keep apart as far as there is room."""

    id: str
    cpus: float
    memory: int
    crew: str | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """A host as placement sees it: what it has, and what is on it. A closed one takes nothing more."""

    name: str
    cpus: float
    memory: int
    things: tuple[Thing, ...] = ()
    open: bool = True

    @property
    def reserved_cpus(self) -> float:
        """The processors that the things on it may use at most."""
        return sum(thing.cpus for thing in self.things)

    @property
    def reserved_memory(self) -> int:
        """The memory that the things on it may use at most."""
        return sum(thing.memory for thing in self.things)

    def fits(self, thing: Thing) -> bool:
        """Whether there is room for it."""
        return (
            self.open
            and self.reserved_cpus + thing.cpus <= self.cpus + GRAIN
            and self.reserved_memory + thing.memory <= self.memory
        )

    def left_with(self, thing: Thing) -> float:
        """The larger share that would still be free with it: the smaller, the tighter it fits."""
        cpus = (self.cpus - self.reserved_cpus - thing.cpus) / self.cpus
        memory = (self.memory - self.reserved_memory - thing.memory) / self.memory
        return max(cpus, memory)

    def with_(self, thing: Thing) -> Space:
        """The host with this on it too."""
        return replace(self, things=(*self.things, thing))

    def mates(self, thing: Thing) -> int:
        """How many of its crew are here."""
        return sum(other.crew == thing.crew for other in self.things) if thing.crew is not None else 0


@dataclass(frozen=True, slots=True)
class Packing:
    """Where everything goes, by id; and what found no place."""

    placed: Mapping[str, str] = field(default_factory=dict)
    left: tuple[Thing, ...] = ()
    spaces: tuple[Space, ...] = ()

    @property
    def used(self) -> int:
        """How many hosts have something on them."""
        return sum(bool(space.things) for space in self.spaces)


Taste: TypeAlias = Callable[[Space, Thing], float]


def best_fit(space: Space, thing: Thing) -> float:
    """The tighter the better."""
    return space.left_with(thing)


def first_fit(_space: Space, _thing: Thing) -> float:
    """The first in the list."""
    return 0.0


def choose(thing: Thing, spaces: Sequence[Space], taste: Taste = best_fit) -> Space | None:
    """The host for one thing: of those with room, those with the fewest of its crew, and of these the tightest."""
    fitting = [space for space in spaces if space.fits(thing)]
    if not fitting:
        return None
    return min(fitting, key=lambda space: (space.mates(thing), taste(space, thing)))


def pack(things: Iterable[Thing], spaces: Sequence[Space]) -> Packing:
    """Find a place for all, the largest first.

    It also tries the plain order and takes whichever leaves less over and then uses fewer hosts, so that it is never worse than
    first-fit.
    """
    things = list(things)
    falling = sorted(things, key=lambda thing: _size(thing, spaces), reverse=True)
    tries = (_packed(falling, spaces, best_fit), _packed(things, spaces, first_fit))
    return min(tries, key=lambda packing: (len(packing.left), packing.used))


def _packed(things: Sequence[Thing], spaces: Sequence[Space], taste: Taste) -> Packing:
    now = {space.name: space for space in spaces}
    placed: dict[str, str] = {}
    left: list[Thing] = []
    for thing in things:
        space = choose(thing, list(now.values()), taste)
        if space is None:
            left.append(thing)
        else:
            placed[thing.id] = space.name
            now[space.name] = space.with_(thing)
    return Packing(placed, tuple(left), tuple(now.values()))


def _size(thing: Thing, spaces: Sequence[Space]) -> float:
    """How much of the largest host it takes, of what it takes most of."""
    cpus = max((space.cpus for space in spaces), default=1.0)
    memory = max((space.memory for space in spaces), default=1)
    return max(thing.cpus / cpus, thing.memory / memory)


# --- plans, in words


def plan_drain(name: str, spaces: Sequence[Space]) -> list[str]:
    """What emptying a host would do."""
    leaving = next((space for space in spaces if space.name == name), None)
    if leaving is None:
        return [f"There is no engine named {name}."]
    rest = [space for space in spaces if space.name != name]
    packing = pack(leaving.things, rest)
    words = [f"Nothing new is placed on {name}; {_count(len(leaving.things))} there {_end(len(leaving.things))}."]
    for host, count in sorted(Counter(packing.placed.values()).items()):
        words.append(f"{_count(count)} will be started anew on {host}.")
    if packing.left:
        cpus, memory = sum(t.cpus for t in packing.left), sum(t.memory for t in packing.left)
        words.append(
            f"There is no room for {_count(len(packing.left))}: {cpus:g} processors and {_mib(memory)} are missing. "
            "Jobs for them will wait."
        )
    return words


def plan_scale(wanted: int, spaces: Sequence[Space], waiting: Sequence[Thing] = ()) -> list[str]:
    """What having so many hosts would do: which are given up and where their workers go, or what a new one would take."""
    serving = [space for space in spaces if space.open]
    if wanted < 1:
        return ["At least one engine has to stay: without one no code can run."]
    if wanted == len(serving):
        return [f"There {_are(wanted)} already, so nothing would change."]
    if wanted > len(serving):
        return _plan_out(wanted - len(serving), serving, waiting)
    words, rest = [], list(spaces)
    for leaving in who_leaves(len(serving) - wanted, serving):
        words += [f"{leaving.name} is given up: it has the least on it.", *plan_drain(leaving.name, rest)]
        packing = pack(leaving.things, [space for space in rest if space.name != leaving.name])
        rest = list(packing.spaces)
    return words


def who_leaves(count: int, spaces: Sequence[Space]) -> list[Space]:
    """Which hosts to give up: those with the least on them."""
    return sorted(spaces, key=lambda space: (space.reserved_memory / space.memory, len(space.things)))[:count]


def _plan_out(more: int, serving: Sequence[Space], waiting: Sequence[Thing]) -> list[str]:
    if not serving:
        return [f"{more} would be added; no engine serves now, so how large a new one is cannot be said."]
    like = max(serving, key=lambda space: (space.cpus, space.memory))
    new = [Space(f"new engine {number + 1}", like.cpus, like.memory) for number in range(more)]
    words = [f"{_hosts(more)} would be added, each like {like.name}: {like.cpus:g} processors, {_mib(like.memory)}."]
    if waiting:
        before, after = pack(waiting, serving), pack(waiting, [*serving, *new])
        found = len(before.left) - len(after.left)
        words.append(f"Of {_count(len(waiting))} without a place, {found} would find one there." if before.left else "")
        if after.left:
            words.append(f"{_count(len(after.left))} would still have none.")
    else:
        words.append("Running workers stay where they are; new ones go there when they fit best there.")
    return [word for word in words if word]


def _count(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"


def _hosts(number: int) -> str:
    return "1 engine" if number == 1 else f"{number} engines"


def _are(number: int) -> str:
    return "is 1 engine" if number == 1 else f"are {number} engines"


def _end(number: int) -> str:
    return "ends when its job has ended" if number == 1 else "end when their jobs have ended"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
