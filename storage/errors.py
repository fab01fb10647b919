"""What can go wrong between us and the database, in words: full disks, locks, lost connections, lost races."""

from __future__ import annotations

import sqlite3

from sqlalchemy import exc

from nodes.errors import Category, FactoryError


class StorageError(FactoryError):
    """The database did not do what it was asked; nothing of it was kept unless the code is `storage.unknown`."""

    code = "storage.failed"
    status = 503
    category = Category.WORKER


class Clash(StorageError):
    """It exists already, or it refers to something that is gone."""

    code = "storage.clash"
    status = 409


class LostRace(StorageError):
    """The row was not in the state it had to be in: somebody else was first."""

    code = "storage.race"
    status = 409


class WrongTenant(StorageError):
    """A row or statement would have left its tenant. Always a mistake of ours, never of a person's."""

    code = "storage.tenant"
    status = 500


AWAY = frozenset({"storage.full", "storage.locked", "storage.lost", "storage.unknown"})
"""Codes of trouble that passes: the same work can be done again later, if doing it twice counts once."""


def full() -> StorageError:
    """No room left."""
    return StorageError(
        "The disk that holds the database is full.",
        code="storage.full",
        fix="Free some space, then try again; nothing that was confirmed is lost.",
        status=507,
    )


def locked() -> StorageError:
    """Another process holds the file."""
    return StorageError(
        "Another program is using the database and did not let go of it.",
        code="storage.locked",
        fix="Close the other program (a backup, or a second Agent Factory on the same folder), then try again.",
    )


def lost() -> StorageError:
    """The server of the database does not answer; nothing was kept."""
    return StorageError(
        "The connection to the database was lost.",
        code="storage.lost",
        fix="Check that the database server runs; the connection comes back by itself.",
    )


def unknown() -> StorageError:
    """The connection broke while the commit was under way."""
    return StorageError(
        "The connection to the database broke while this was being saved, so it may or may not be saved.",
        code="storage.unknown",
        fix="Look whether it is there before you try again.",
    )


def fenced() -> StorageError:
    """Another server took over what this one had in hand."""
    return StorageError(
        "This server could not reach the database for a while, so its work was given to another one.",
        code="storage.fenced",
        fix="Try again in a moment: it comes back by itself.",
    )


def in_use(path: str) -> StorageError:
    """A second server on one file."""
    return StorageError(
        f"Another Agent Factory is running on the database {path}.",
        code="storage.in_use",
        fix="Stop the other one first, or give this one a folder of its own with FACTORY_HOME.",
        status=409,
    )


def stopped() -> StorageError:
    """The database is not open."""
    return StorageError("The database is closed.", code="storage.stopped", fix="Start Agent Factory again.")


def newer(path: str) -> StorageError:
    """The database was made by a later version of this program."""
    return StorageError(
        f"The database {path} was made by a newer Agent Factory.",
        code="storage.newer",
        fix="Install that newer version, or restore a backup that this one made.",
    )


def unprintable() -> StorageError:
    """A text holds the character NUL, which PostgreSQL cannot keep."""
    return StorageError(
        "A text holds a character that cannot be kept: the one with the number 0.",
        code="storage.text",
        fix="Remove that character, then try again.",
        status=422,
    )


def failed(error: BaseException) -> StorageError:
    """Anything else the database said."""
    return StorageError(
        f"The database failed: {_first_line(error)}.",
        fix="Check the disk and the database; the log has the details.",
    )


_FULL = {sqlite3.SQLITE_FULL}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def explained(error: BaseException) -> BaseException:
    """The typed error behind what a database library raised; anything that is not a library's comes back as it is."""
    if isinstance(error, exc.DBAPIError):
        if isinstance(error, exc.IntegrityError):
            return _clash(error)
        if error.connection_invalidated:
            return lost()
        error = error.orig or error
    if isinstance(error, sqlite3.Error):
        if isinstance(error, sqlite3.IntegrityError):
            return _clash(error)
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary in _FULL:
            return full()
        if primary in _LOCKED:
            return locked()
        return failed(error)
    # PostgreSQL's errors carry a five-letter SQLSTATE whose first two letters are the class.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str):
        if state == "53100":
            return full()
        if state in ("55P03", "57014", "40P01"):
            return locked()
        if state[:2] in ("08", "57"):
            return lost()
        if state in ("22021", "22P05"):
            return unprintable()
        if state[:2] == "23":
            return _clash(error)
        return failed(error)
    if isinstance(error, exc.SQLAlchemyError):
        return failed(error)
    return error


def _clash(error: BaseException) -> Clash:
    return Clash(
        f"The database refused it: {_first_line(error)}.",
        fix="It exists already, or it refers to something that is gone.",
    )


def _first_line(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    # What follows the first line can quote the values, and those may be private.
    return (
        str(original).splitlines()[0].removeprefix(f"{type(original)}: ").rstrip(".")
        if str(original)
        else type(original).__name__
    )
