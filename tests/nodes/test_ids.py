"""Identifiers: their form, their order, and that no two are the same."""

from hypothesis import given
from hypothesis import strategies as st

from nodes.ids import new_id, new_token

CROCKFORD = set("0123456789abcdefghjkmnpqrstvwxyz")


@given(st.from_regex(r"[a-z]{1,12}", fullmatch=True))
def test_an_id_says_what_it_is_of_and_has_26_characters_that_cannot_be_misread(prefix: str) -> None:
    kind, _, rest = new_id(prefix).rpartition("_")
    assert kind == prefix
    assert len(rest) == 26 and set(rest) <= CROCKFORD


def test_the_time_an_id_was_made_at_can_be_read_from_it_so_ids_sort_by_time(monkeypatch) -> None:
    moments = [0.0, 0.001, 1.0, 1_700_000_000.123, 1_700_000_000.124, 4_000_000_000.0]
    ids = []
    for moment in moments:
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        ids.append(new_id("run"))
    assert ids == sorted(ids)
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    read = [sum(alphabet.index(sign) * 32**place for place, sign in enumerate(reversed(id_[4:14]))) for id_ in ids]
    assert read == [int(moment * 1000) for moment in moments]


def test_no_two_are_the_same() -> None:
    assert len({new_id("x") for _ in range(10_000)}) == 10_000
    assert len({new_token() for _ in range(1_000)}) == 1_000
    assert set(new_token()) <= CROCKFORD
