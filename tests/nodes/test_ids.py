"""Identifiers: their form, their order, and that no two are the same."""

import time

from hypothesis import given
from hypothesis import strategies as st

from nodes.ids import new_id, new_token

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@given(st.from_regex(r"[a-z]{1,12}", fullmatch=True))
def test_an_id_says_what_it_is_of_and_has_26_characters_that_cannot_be_misread(prefix: str) -> None:
    kind, _, rest = new_id(prefix).rpartition("_")
    assert kind == prefix
    assert len(rest) == 26 and set(rest) <= set(CROCKFORD)


def made_at(id_: str) -> int:
    """The millisecond that an id tells."""
    return sum(CROCKFORD.index(sign) * 32**place for place, sign in enumerate(reversed(id_[-26:-16])))


def test_ids_tell_when_they_were_made_and_sort_by_it() -> None:
    before = int(time.time() * 1000)
    ids = [new_id("run") for _ in range(10_000)]
    after = int(time.time() * 1000)
    moments = [made_at(id_) for id_ in ids]
    assert before <= moments[0] and moments[-1] <= after
    assert moments == sorted(moments) == [made_at(id_) for id_ in sorted(ids)]


def test_no_two_are_the_same() -> None:
    assert len({new_id("x") for _ in range(10_000)}) == 10_000
    assert len({new_token() for _ in range(1_000)}) == 1_000
    assert set(new_token()) <= set(CROCKFORD)
