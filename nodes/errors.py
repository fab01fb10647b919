"""The one base of every error a person or a client can see: a stable code, a sentence, and a fix."""

from typing import Any

from nodes.categories import Category as Category


class FactoryError(Exception):
    """Something went wrong that we can explain.

    `code` is stable and dotted (`blueprint.too_many_nodes`), `message` is one plain sentence, `fix` says what to do,
    `where` points at the place (`{"node": "n1", "field": "url"}`), `status` is the HTTP status the API answers with.
    `category` says what kind of trouble it is when a run fails of it.
    """

    code = "factory.error"
    status = 400
    category: Category = Category.BUG

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fix: str | None = None,
        where: dict[str, Any] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.fix = fix
        self.where = where or {}
        self.status = status or type(self).status

    def as_dict(self) -> dict[str, Any]:
        """The error as the API sends it and the screens show it."""
        return {"code": self.code, "message": self.message, "fix": self.fix, "where": self.where}


class NotFound(FactoryError):
    """It does not exist, or it belongs to another tenant: the two must look the same."""

    code = "not_found"
    status = 404
    category = Category.CONFIGURATION


class Denied(FactoryError):
    """The person or token may not do this."""

    code = "denied"
    status = 403
    category = Category.CREDENTIAL


class Conflict(FactoryError):
    """Somebody else changed it first."""

    code = "conflict"
    status = 409
    category = Category.INPUT


class TooMany(FactoryError):
    """A limit was reached; `fix` says which and how to go on."""

    code = "limit.reached"
    status = 429
    category = Category.LIMIT
