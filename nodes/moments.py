"""When a schedule comes round: the next moments of a declaration, right across changes of the clock, and the same in words."""

from calendar import day_name
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from datetime import time as time_of_day
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from nodes.listen import Schedule

_DAY = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OWN_WORDS = {"UTC": "UTC", "Etc/UTC": "UTC", "GMT": "GMT", "": "UTC"}


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo | timezone:
    """A time zone by name. Raises ValueError with a sentence."""
    if name in ("", "UTC"):
        return UTC
    if name not in _zone_names():
        raise ValueError(f"“{name[:40]}” is not a time zone; write for example Europe/Berlin")
    return ZoneInfo(name)


def zone_in_words(name: str) -> str:
    """A time zone as people say it: “Berlin time”."""
    return _OWN_WORDS.get(name) or f"{name.rpartition('/')[2].replace('_', ' ')} time"


def check_cron(text: str) -> str:
    """The cron text without extra spaces. Raises ValueError with a sentence."""
    parts = text.split()
    if len(parts) != 5:
        raise ValueError(
            f"a cron text has five parts (minute, hour, day, month, day of week), and this has {len(parts)}"
        )
    try:
        next(CronSim(" ".join(parts), _EPOCH))
    except CronSimError as error:
        said = str(error)
        part = said.removeprefix("Bad ").replace("-", " ") if said.startswith("Bad ") else ""
        if part == "day of month":
            raise ValueError("the part for the day of month cannot be read, or that day never comes") from None
        raise ValueError(
            f"the part for the {part} cannot be read" if part else "this cron text cannot be read"
        ) from None
    except StopIteration:
        raise ValueError("this day never comes") from None
    return " ".join(parts)


def cron_in_words(text: str) -> str:
    """A cron text in words: “At 09:00 on Monday through Friday”."""
    return CronSim(text, _EPOCH).explain()


def upcoming(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next moments strictly after one, in UTC. Raises ValueError when the schedule cannot be read.

    A time of day that the clock jumps over comes right after the jump; one that the clock shows twice comes once.
    """
    return list(islice(_moments(schedule, after.astimezone(UTC)), count))


def missed(schedule: Schedule, due: datetime, now: datetime, most: int) -> list[datetime]:
    """The latest moments from `due` to `now`, both included, oldest first; `due` was the first of them.

    It looks back in ever wider windows, so that a minute's schedule after a month costs no more than it gives.
    """
    window = timedelta(minutes=10)
    while now - window > due:
        found = _until(schedule, now - window, now, most)
        if len(found) >= most:
            return found
        window *= 4
    return [due, *_until(schedule, due, now, most)][-most:]


def _until(schedule: Schedule, after: datetime, now: datetime, most: int) -> list[datetime]:
    found: deque[datetime] = deque(maxlen=most)
    for moment in _moments(schedule, after.astimezone(UTC)):
        if moment > now:
            break
        found.append(moment)
    return list(found)


def schedule_in_words(schedule: Schedule) -> str:
    """A schedule as people say it: “Every day at 09:00, Berlin time”."""
    where = zone_in_words(schedule.time_zone)
    if schedule.at:
        days = max(1, round(schedule.every / _DAY))
        return f"Every {'day' if days == 1 else f'{days} days'} at {schedule.at}, {where}"
    if schedule.every:
        for seconds, unit in ((_DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
            if schedule.every % seconds == 0:
                count = round(schedule.every / seconds)
                return f"Every {unit}" if count == 1 else f"Every {count} {unit}s"
        return f"Every {schedule.every:g} seconds"
    return f"{_weekly(schedule.cron) or cron_in_words(schedule.cron)}, {where}"


def _weekly(cron: str) -> str:
    """A cron text that means days of the week at a time, as people say it; empty for any other."""
    minute, hour, day, month, weekdays = cron.split() if cron.count(" ") == 4 else ("",) * 5
    if not (minute.isdecimal() and hour.isdecimal() and day == month == "*"):
        return ""
    chosen = {"*": "1,2,3,4,5,6,0", "1-5": "1,2,3,4,5"}.get(weekdays, weekdays).split(",")
    if not all(one.isdecimal() and int(one) < 8 for one in chosen):
        return ""
    numbers = sorted({(int(one) + 6) % 7 for one in chosen})
    return f"{days_in_words(numbers)} at {int(hour):02}:{int(minute):02}"


def days_in_words(numbers: list[int]) -> str:
    """Days of the week, Monday being 0: “Every weekday”, “Every Monday and Friday”."""
    if len(numbers) == 7:
        return "Every day"
    if numbers == [0, 1, 2, 3, 4]:
        return "Every weekday"
    if numbers == [5, 6]:
        return "Every Saturday and Sunday"
    *first, last = (day_name[number] for number in numbers)
    return f"Every {', '.join(first)} and {last}" if first else f"Every {last}"


def moment_in_words(moment: datetime) -> str:
    """A moment on the clock of its zone: “Monday 2 March 2026, 09:00”."""
    return f"{moment:%A} {moment.day} {moment:%B %Y, %H:%M}"


def _moments(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    if schedule.at:
        found = _daily(schedule, after)
    elif schedule.every:
        found = _spaced(schedule.every, after)
    else:
        found = _by_cron(schedule, after)
    last = after
    for moment in found:
        if moment > last:
            last = moment
            yield moment


def _by_cron(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    # The library compares clock readings; in the hour that comes twice it can fall behind, so `_moments` drops what is not later.
    found = CronSim(check_cron(schedule.cron), after.astimezone(zone(schedule.time_zone)))
    try:
        for moment in found:
            yield moment.astimezone(UTC)
    except (OverflowError, ValueError):
        return  # the end of the calendar


def _spaced(seconds: float, after: datetime) -> Iterator[datetime]:
    # Counted from 1970, so that every server and every restart finds the same moments.
    if seconds < 1:
        raise ValueError("the time between two moments must be at least a second")
    number = int((after - _EPOCH).total_seconds() // seconds)
    while True:
        number += 1
        try:
            yield _EPOCH + timedelta(seconds=number * seconds)
        except OverflowError:
            return


def _daily(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    here = zone(schedule.time_zone)
    days = max(1, round(schedule.every / _DAY))
    clock = time_of_day.fromisoformat(schedule.at)
    number = after.astimezone(here).date().toordinal() // days * days
    while True:
        try:
            wall = datetime.combine(datetime.fromordinal(max(1, number)), clock, tzinfo=here)
            while wall.astimezone(UTC).astimezone(here).replace(fold=0) != wall:
                wall += timedelta(minutes=1)  # the clock jumps over it
            yield wall.astimezone(UTC)
        except (OverflowError, ValueError):
            return
        number += days
