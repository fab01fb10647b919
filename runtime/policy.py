"""Who may do what: roles, permissions and the actor that every service call is made as."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from nodes.errors import Denied


class Permission(StrEnum):
    """The verbs. Each service method asks for exactly one."""

    VIEW = "view"
    EDIT = "edit"
    RUN = "run"
    DEPLOY = "deploy"
    APPROVE = "approve"
    SECRETS = "secrets"
    ADMIN = "admin"


class Role(StrEnum):
    """What a person or token is in the tenant."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"


_BUILDER = frozenset({Permission.VIEW, Permission.EDIT, Permission.RUN, Permission.DEPLOY, Permission.APPROVE})
PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.DEVELOPER: _BUILDER,
    Role.ADMIN: frozenset(Permission),
}

_WORDS = {
    Permission.VIEW: "see this",
    Permission.EDIT: "change agents",
    Permission.RUN: "run agents",
    Permission.DEPLOY: "deploy agents",
    Permission.APPROVE: "decide approvals",
    Permission.SECRETS: "manage secrets",
    Permission.ADMIN: "manage people and settings",
}


@dataclass(frozen=True, slots=True)
class Actor:
    """The person, token or trigger on whose behalf something is done, always inside one tenant."""

    tenant: str
    id: str
    name: str
    role: Role
    kind: Literal["person", "token", "command"] = "person"

    def may(self, permission: Permission) -> bool:
        """Whether the role includes the permission; for hiding what would be refused anyway."""
        return permission in PERMISSIONS[self.role]

    def require(self, permission: Permission) -> None:
        """Raise Denied unless the role includes the permission."""
        if not self.may(permission):
            raise Denied(
                f"Your role “{self.role}” may not {_WORDS[permission]}.",
                fix="Ask an admin of your team for a role that may.",
            )
