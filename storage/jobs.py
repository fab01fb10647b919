"""What is queued for the writer, and how the waiting are answered: all of a group with one call into their loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlmodel import Session

from storage.records import RunRecord


@dataclass(slots=True)
class RecordJob:
    """A record for the fast lane."""

    record: RunRecord
    future: asyncio.Future[None]


@dataclass(slots=True)
class SessionJob:
    """A function to be called with a session. It may be called again when the first try did not reach the database."""

    make: Callable[[Connection], Session]
    fn: Callable[[Any], Any]
    future: asyncio.Future[Any]


WriteJob = RecordJob | SessionJob
Answer = tuple[WriteJob, Any, BaseException | None]


def resolve(answers: Iterable[Answer]) -> None:
    """Give each waiting future its result or its error; those that stopped waiting are passed over."""
    for job, result, error in answers:
        future = job.future
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
