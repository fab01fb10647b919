"""What starts runs: what each trigger makes of an event, what it waits for, and what it says of itself."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nodes import listen
from nodes.answers import read_answers, read_number
from nodes.base import Label, NodeError
from nodes.catalog import catalog
from nodes.moments import check_cron, upcoming, zone
from nodes.trigger.schedule import Schedule
from tests.nodes.fakes import make, run

UNTRUSTED = frozenset({Label.UNTRUSTED})

# --- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["trigger.webhook", "trigger.form", "trigger.chat"])
def test_each_placed_trigger_gets_an_address_of_its_own(type_: str) -> None:
    cls = catalog().get(type_)
    first, second = cls.first_settings()["path"], cls.first_settings()["path"]
    assert first != second
    assert len(first) == len(second) == 26


@pytest.mark.parametrize("path", ["", "a/b", "../x", "a b", "ä", "a?b"])
def test_an_address_is_one_plain_word(path: str) -> None:
    with pytest.raises(ValidationError):
        make("trigger.webhook", path=path)


# --- webhook -----------------------------------------------------------------------------------------------------------


def test_a_webhook_declares_what_it_waits_for() -> None:
    node = make("trigger.webhook", path="orders", method="PUT", secret="shop-key", respond="end")
    assert node.listens() == listen.Webhook("orders", "PUT", "shop-key", "end")


def test_only_a_signed_webhook_is_trusted() -> None:
    assert make("trigger.webhook", path="orders").labels() == UNTRUSTED
    assert make("trigger.webhook", path="orders", secret="shop-key").labels() == frozenset()


async def test_the_sample_body_is_what_the_sandbox_sends() -> None:
    node = make("trigger.webhook", path="orders", sample_body='{"total": 7}')
    assert (await run(node, {"event": node.sample()}))["body"] == {"total": 7}


def test_a_sample_body_must_be_json() -> None:
    with pytest.raises(ValidationError, match="not valid JSON"):
        make("trigger.webhook", path="orders", sample_body="{total: 7}")


# --- schedule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"at": "09:00", "time_zone": "Europe/Berlin"}, "Every weekday at 09:00, Berlin time"),
        ({"days": ["sun", "sat"], "at": "10:30"}, "Every Saturday and Sunday at 10:30, UTC"),
        ({"days": ["wed", "mon"], "at": "07:05", "time_zone": "America/New_York"}, "Every Monday and Wednesday at 07:05, New York time"),
        ({"days": ["fri"]}, "Every Friday at 09:00, UTC"),
        ({"mode": "every", "every": 1, "unit": "hours"}, "Every hour"),
        ({"mode": "every", "every": 15, "unit": "minutes"}, "Every 15 minutes"),
        ({"mode": "every", "every": 2, "unit": "days", "at": "06:00"}, "Every 2 days at 06:00, UTC"),
        ({"mode": "cron", "cron": "0 9 * * 1-5"}, "At 09:00 on Monday through Friday, UTC"),
    ],
)  # fmt: skip
def test_a_schedule_reads_itself_back(settings: dict[str, object], words: str) -> None:
    assert make("trigger.schedule", **settings).describe() == words


def test_weekdays_keep_to_the_clock_on_the_wall_when_summer_comes() -> None:
    node = make("trigger.schedule", at="09:00", time_zone="Europe/Berlin")
    assert isinstance(node, Schedule)
    found = node.next_times(datetime(2026, 3, 27, 12, tzinfo=UTC), 2)
    assert [moment.isoformat() for moment in found] == ["2026-03-30T09:00:00+02:00", "2026-03-31T09:00:00+02:00"]
    assert node.next_times(datetime(2026, 3, 26, 12, tzinfo=UTC), 1)[0].isoformat() == "2026-03-27T09:00:00+01:00"


@pytest.mark.parametrize(
    "schedule",
    [
        listen.Schedule(cron="30 2 * * *", time_zone="Europe/Berlin"),
        listen.Schedule(every=86_400, at="02:30", time_zone="Europe/Berlin"),
    ],
)
def test_a_time_that_the_clock_jumps_over_comes_right_after_and_one_shown_twice_comes_once(
    schedule: listen.Schedule,
) -> None:
    spring = upcoming(schedule, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert spring == [datetime(2026, 3, 29, 1, 0, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]
    autumn = upcoming(schedule, datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert autumn == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


def test_every_few_minutes_goes_on_through_the_hour_that_comes_twice() -> None:
    schedule = listen.Schedule(every=1800, time_zone="Europe/Berlin")
    found = upcoming(schedule, datetime(2026, 10, 24, 23, 45, tzinfo=UTC), 5)
    assert {later - earlier for earlier, later in itertools.pairwise(found)} == {timedelta(minutes=30)}


def test_every_second_day_counts_calendar_days() -> None:
    schedule = listen.Schedule(every=2 * 86_400, at="00:30", time_zone="Europe/Berlin")
    days = [
        moment.astimezone(zone("Europe/Berlin")).date()
        for moment in upcoming(schedule, datetime(2026, 3, 20, tzinfo=UTC), 20)
    ]
    assert {later - earlier for earlier, later in itertools.pairwise(days)} == {timedelta(days=2)}


def test_monday_to_friday_in_a_cron_text_is_monday_to_friday() -> None:
    found = upcoming(listen.Schedule(cron="0 9 * * 1-5"), datetime(2026, 3, 1, tzinfo=UTC), 5)
    assert [moment.weekday() for moment in found] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("cron", "said"),
    [("0 9 * *", "five parts"), ("61 * * * *", "minute"), ("0 0 31 2 *", "never comes"), ("* * * * * *", "five parts"), ("x", "five")],
)  # fmt: skip
def test_a_wrong_cron_text_is_explained(cron: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make("trigger.schedule", mode="cron", cron=cron)


@pytest.mark.parametrize("settings", [{"time_zone": "Europe/Belrin"}, {"time_zone": "../etc/passwd"}, {"at": "24:00"}, {"mode": "every", "every": 10_000, "unit": "days"}, {"days": []}])  # fmt: skip
def test_a_wrong_schedule_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make("trigger.schedule", **settings)


@given(text=st.text(st.sampled_from("0123456789*/,-#LW MONJAN"), max_size=30) | st.text(max_size=20))
def test_any_cron_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        kept = check_cron(text)
    except ValueError as error:
        assert len(str(error)) > 10
    else:
        assert check_cron(kept) == kept


_FIELD = st.sampled_from(["*", "*/7", "0", "5,17", "1-3"])


@given(
    minute=_FIELD,
    hour=_FIELD,
    day=st.sampled_from(["*", "1", "L", "10-20"]),
    weekday=st.sampled_from(["*", "1-5", "0"]),
    zone_name=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    after=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
def test_next_times_always_go_forward(
    minute: str, hour: str, day: str, weekday: str, zone_name: str, after: datetime
) -> None:
    found = upcoming(listen.Schedule(cron=f"{minute} {hour} {day} * {weekday}", time_zone=zone_name), after, 4)
    assert len(found) == 4
    assert found == sorted(set(found))
    assert found[0] > after


# --- form --------------------------------------------------------------------------------------------------------------

FIELDS = (
    listen.FormField("who", "Your name"),
    listen.FormField("days", "Days", "number", required=False),
    listen.FormField("ok", "Agreed", "yes/no"),
    listen.FormField("dish", "Dish", "choice", choices=("soup", "salad"), required=False),
    listen.FormField("mail", "E-mail", "e-mail", required=False),
    listen.FormField("day", "Day", "date", required=False),
)


def test_answers_become_values() -> None:
    typed = {"who": " Ada ", "days": "1,5", "ok": "on", "dish": "soup", "mail": "a@b.de", "day": "2026-03-02", "x": "y"}
    answers, problems = read_answers(FIELDS, typed)
    assert answers == {"who": "Ada", "days": 1.5, "ok": True, "dish": "soup", "mail": "a@b.de", "day": "2026-03-02"}
    assert not problems


def test_each_wrong_answer_gets_its_sentence() -> None:
    _, problems = read_answers(FIELDS, {"who": "", "days": "many", "dish": "cake", "mail": "nobody", "day": "soon"})
    assert set(problems) == {"who", "days", "dish", "mail", "day"}
    assert problems["who"] == "“Your name” is still empty."
    assert problems["days"] == "“Days” must be a number."


@given(given_=st.dictionaries(st.sampled_from([field.name for field in FIELDS]), st.none() | st.text() | st.integers() | st.lists(st.text())))  # fmt: skip
def test_any_answers_are_read_or_explained(given_: dict[str, object]) -> None:
    answers, problems = read_answers(FIELDS, given_)
    assert set(answers) == {field.name for field in FIELDS}
    assert all(sentence.endswith(".") for sentence in problems.values())


@pytest.mark.parametrize("text", ["inf", "nan", "1_000", "1e999", "", "١x"])
def test_what_is_no_number_is_not_read_as_one(text: str) -> None:
    assert read_number(text) is None


async def test_a_form_without_a_required_answer_starts_nothing() -> None:
    node = make("trigger.form", path="p", fields=[{"name": "who", "label": "Your name"}])
    with pytest.raises(NodeError, match="Your name") as caught:
        await run(node, {"event": {"answers": {}}})
    assert caught.value.details == {"problems": {"who": "“Your name” is still empty."}}


@pytest.mark.parametrize(
    "fields",
    [[], [{"name": "a b"}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "kind": "choice"}], [{"name": "a", "kind": "file"}]],
)  # fmt: skip
def test_a_form_with_wrong_questions_is_refused(fields: list[dict[str, object]]) -> None:
    with pytest.raises(ValidationError):
        make("trigger.form", path="p", fields=fields)


# --- all of them -------------------------------------------------------------------------------------------------------


def test_open_doors_are_marked_as_untrusted() -> None:
    assert make("trigger.form", path="p").labels() == UNTRUSTED
    assert make("trigger.chat", path="p").labels() == UNTRUSTED
    assert make("trigger.schedule").labels() == make("trigger.manual").labels() == frozenset()


@pytest.mark.parametrize("type_", [cls.type for cls in catalog() if cls.family == "trigger"])
async def test_the_sample_event_can_be_run(type_: str) -> None:
    needed = {"trigger.row_added": {"table": "orders"}, "trigger.run_ended": {"blueprint": "bp_1"}}
    node = make(type_, **needed.get(type_, {}))
    assert await run(node, {"event": node.sample()})


async def test_an_empty_message_is_no_message() -> None:
    with pytest.raises(NodeError, match="no message"):
        await run(make("trigger.chat", path="p"), {"event": {"text": "  ", "conversation": "c"}})
