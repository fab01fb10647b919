"""Where workers go: never more than fits, a crew's members apart, and never worse than taking the first that fits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runtime.workers.placement import Space, Thing, choose, pack, plan_drain, plan_scale

MIB = 1024 * 1024
CPUS = st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
MEMORY = st.integers(16, 2_048).map(lambda size: size * MIB)


def things(crews: st.SearchStrategy[str | None]) -> st.SearchStrategy[list[Thing]]:
    return st.lists(st.tuples(CPUS, MEMORY, crews), max_size=40).map(
        lambda made: [Thing(f"w{number}", *figures) for number, figures in enumerate(made)]
    )


SPACES = st.lists(
    st.tuples(st.sampled_from([1.0, 2.0, 4.0, 8.0]), st.integers(256, 8_192), st.booleans()), min_size=1, max_size=8
).map(
    lambda made: [Space(f"h{number}", cpus, size * MIB, (), open_) for number, (cpus, size, open_) in enumerate(made)]
)
ANY_CREW = st.sampled_from([None, "red", "blue"])


@given(things(ANY_CREW), SPACES)
def test_no_host_ever_has_more_on_it_than_it_has(wanted, spaces):
    packing = pack(wanted, spaces)
    for space in packing.spaces:
        assert space.reserved_cpus <= space.cpus + 1e-6
        assert space.reserved_memory <= space.memory
        assert space.open or not space.things, "a closed host takes nothing"
    assert sorted([*packing.placed, *(thing.id for thing in packing.left)]) == sorted(thing.id for thing in wanted)
    assert packing.placed == {thing.id: space.name for space in packing.spaces for thing in space.things}


@given(things(ANY_CREW), SPACES)
def test_what_is_left_over_fits_nowhere(wanted, spaces):
    packing = pack(wanted, spaces)
    assert not [thing.id for thing in packing.left if any(space.fits(thing) for space in packing.spaces)]


@given(things(ANY_CREW), SPACES)
def test_a_crew_is_spread_as_far_as_there_is_room(wanted, spaces):
    packing = pack(wanted, spaces)
    for crew in ("red", "blue"):
        for full in packing.spaces:
            here = [thing for thing in full.things if thing.crew == crew]
            for other in packing.spaces:
                there = sum(thing.crew == crew for thing in other.things)
                if other.open and len(here) > there + 1:
                    assert not other.fits(here[-1]), "the last that came could have gone to a host with fewer of them"


def plain_first_fit(wanted: list[Thing], spaces: list[Space]) -> tuple[int, int]:
    """Left over, hosts used: written down once more, without anything of what is tested."""
    free = [[space.cpus, space.memory, 0] for space in spaces if space.open]
    left = 0
    for thing in wanted:
        for host in free:
            if thing.cpus <= host[0] + 1e-9 and thing.memory <= host[1]:
                host[0], host[1], host[2] = host[0] - thing.cpus, host[1] - thing.memory, 1
                break
        else:
            left += 1
    return left, sum(host[2] for host in free)


@given(things(st.none()), SPACES)
def test_it_is_never_worse_than_taking_the_first_that_fits(wanted, spaces):
    packing = pack(wanted, spaces)
    assert (len(packing.left), packing.used) <= plain_first_fit(wanted, spaces)


@given(things(ANY_CREW), SPACES)
def test_one_by_one_each_goes_where_the_fewest_of_its_crew_are(wanted, spaces):
    now = list(spaces)
    for thing in wanted:
        chosen = choose(thing, now)
        fitting = [space for space in now if space.fits(thing)]
        assert (chosen is None) == (not fitting)
        if chosen is not None:
            assert chosen.mates(thing) == min(space.mates(thing) for space in fitting)
            now[now.index(chosen)] = chosen.with_(thing)


@given(things(ANY_CREW), SPACES, st.integers(-1, 10))
def test_a_plan_says_something_and_changes_nothing(wanted, spaces, hosts):
    loaded = list(pack(wanted, spaces).spaces)
    before = list(loaded)
    for words in (plan_scale(hosts, loaded), plan_drain(loaded[0].name, loaded)):
        assert words
        assert all(word.endswith(".") for word in words)
    assert loaded == before


def test_the_tightest_host_is_taken():
    loose, tight = Space("loose", 8, 8_000 * MIB), Space("tight", 1, 512 * MIB)
    chosen = choose(Thing("w", 0.5, 128 * MIB), [loose, tight])
    assert chosen is tight


def test_a_plan_to_give_up_a_host_names_it_and_where_its_workers_go():
    small = tuple(Thing(f"w{number}", 0.5, 128 * MIB) for number in range(3))
    one, two = Space("one", 2, 1_024 * MIB, small[:2]), Space("two", 2, 1_024 * MIB, small[2:])
    assert plan_scale(1, [one, two]) == [
        "two is given up: it has the least on it.",
        "Nothing new is placed on two; 1 worker there ends when its job has ended.",
        "1 worker will be started anew on one.",
    ]


def test_a_plan_says_what_does_not_fit():
    big = tuple(Thing(f"w{number}", 1, 512 * MIB) for number in range(2))
    words = plan_drain("one", [Space("one", 2, 1_024 * MIB, big), Space("two", 1, 1_024 * MIB)])
    assert words[1:] == [
        "1 worker will be started anew on two.",
        "There is no room for 1 worker: 1 processors and 512 MiB are missing. Jobs for them will wait.",
    ]


def test_a_plan_for_more_hosts_says_who_finds_a_place():
    waiting = [Thing(f"w{number}", 1, 128 * MIB) for number in range(3)]
    words = plan_scale(2, [Space("one", 1, 1_024 * MIB)], waiting)
    assert words == [
        "1 engine would be added, each like one: 1 processors, 1,024 MiB.",
        "Of 3 workers without a place, 1 would find one there.",
        "1 worker would still have none.",
    ]


def test_members_of_a_crew_are_on_as_many_hosts_as_there_are():
    crew = [Thing(f"w{number}", 0.5, 128 * MIB, "red") for number in range(4)]
    packing = pack(crew, [Space("one", 8, 8_000 * MIB), Space("two", 8, 8_000 * MIB)])
    assert Counter(packing.placed.values()) == {"one": 2, "two": 2}
