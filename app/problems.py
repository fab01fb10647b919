"""Errors in words: what a person sees on a page, in a notice or as JSON, and the incident number that finds it in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import structlog
from nicegui import ui

from nodes.errors import FactoryError
from nodes.ids import new_id

log = structlog.get_logger("factory.app")


class Incident(FactoryError):
    """Something broke on our side. The person gets a number; the log has the rest under it."""

    code = "incident"
    status = 500

    def __init__(self, number: str) -> None:
        super().__init__(
            "Something went wrong on our side.",
            fix=f"Try again. If it stays, tell your admin the number {number}.",
            where={"incident": number},
        )


def explain(problem: BaseException, *, place: str = "") -> FactoryError:
    """The error as a person may see it. What we did not foresee is logged and becomes an Incident."""
    if isinstance(problem, FactoryError):
        return problem
    number = new_id("inc")
    log.error("incident", incident=number, place=place, exc_info=problem)
    return Incident(number)


def retry_after(error: FactoryError) -> int | None:
    """After how many seconds it makes sense to come back; None when that is not the trouble."""
    return int(error.where.get("retry_after", 5)) if error.status in (429, 503) else None


@contextlib.contextmanager
def recorded(place: str) -> Iterator[None]:
    """Let only FactoryErrors out of the block."""
    try:
        yield
    except Exception as problem:
        error = explain(problem, place=place)
        if error is problem:
            raise
        raise error from problem


def notify_problem(problem: BaseException) -> None:
    """Show an error as a notice on the current page: the sentence, then what to do."""
    error = explain(problem)
    with contextlib.suppress(RuntimeError):  # the page may be gone by now
        if ui.context.client.is_deleted:
            return
        if error.status == 401:
            ui.navigate.to("/login")
            return
        text = error.message if not error.fix else f"{error.message}\n{error.fix}"
        options: dict[str, Any] = {"multi_line": True, "close_button": "Close", "timeout": 8000}
        ui.notify(text, type="negative" if error.status >= 500 else "warning", classes="af-notice", **options)
