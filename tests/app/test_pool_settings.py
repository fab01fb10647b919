"""How many workers are kept warm is set by their size, or for the usual one by a number alone."""

from __future__ import annotations

import pytest

from app.settings import Settings, SettingsError


def test_nothing_said_leaves_the_usual() -> None:
    assert Settings.load().pools() == {}


def test_a_number_alone_is_for_small_workers() -> None:
    pools = Settings.load(pool_ceiling="12", pool_ttl="60").pools()
    assert {name: (one.size, one.ceiling, one.ttl) for name, one in pools.items()} == {"small": (2, 12, 60.0)}


def test_each_size_has_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_POOL_FLOOR", "small=3, medium=1")
    monkeypatch.setenv("FACTORY_POOL_CEILING", "medium=5")
    pools = Settings.load(pool_size=1).pools()
    assert (pools["small"].size, pools["medium"].size, pools["medium"].ceiling) == (3, 1, 5)
    assert all(one.forecast for one in pools.values())


def test_a_ceiling_is_never_below_its_floor_or_nothing() -> None:
    pools = Settings.load(pool_floor="small=4", pool_ceiling="small=2,large=0").pools()
    assert (pools["small"].ceiling, pools["large"].ceiling) == (4, 1)


def test_a_size_of_ones_own_has_numbers_too() -> None:
    pools = Settings.load(worker_sizes="tiny:cpus=0.25", pool_floor="tiny=3").pools()
    assert (pools["tiny"].size, pools["tiny"].forecast) == (3, True)


def test_where_nothing_is_kept_warm_nothing_is_foreseen() -> None:
    pools = Settings.load(pool_size=0, pool_ceiling="small=4").pools()
    assert (pools["small"].size, pools["small"].forecast) == (0, False)


@pytest.mark.parametrize("wrong", ["gigantic=2", "small=-1", "small=many", "=3", "small=999999"])
def test_what_cannot_be_is_refused_with_the_name_of_the_setting(wrong: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(pool_floor=wrong)
    assert "FACTORY_POOL_FLOOR" in caught.value.message
