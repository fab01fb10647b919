"""The manifest of a crew: who belongs to it, what each may do, what they share, whom they may call, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from nodes.blueprint import BlueprintError, check_json
from nodes.errors import FactoryError
from nodes.rules import rules_of
from runtime.targets import read_pattern

MOST_MEMBERS: Final = 50
KIB: Final = 1024
CODE_LIMIT: Final = 256 * KIB
CONTEXT_LIMIT: Final = 256 * KIB
SCHEMA_LIMIT: Final = 16 * KIB

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([-_][a-z0-9]+)*$", max_length=40)]
Topic = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=64)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
Host = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Tool: TypeAlias = Literal["talk", "share", "tasks", "files", "http"]

SCOPES_OF: Final[Mapping[Tool, frozenset[str]]] = {
    "talk": frozenset({"crew:send"}),
    "share": frozenset({"crew:write"}),
    "tasks": frozenset({"task:push", "task:pop"}),
    "files": frozenset({"file:read", "file:write"}),
    "http": frozenset({"tool:exec"}),
}
_OURS: Final = ("CREW_", "FACTORY_", "LD_", "PYTHON")
_NOT_SET_HERE: Final = frozenset({"HOME", "PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "IFS", "SHELL"})


class ManifestError(FactoryError):
    """The manifest is not right; `where` names the place."""

    code = "crew.manifest"
    status = 422


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


M = TypeVar("M", bound=_Part)


class NetworkPolicy(_Part):
    """Whom members with the tool `http` may call. Nobody, unless a host is listed."""

    allow: tuple[Host, ...] = Field(
        default=(),
        max_length=64,
        strict=False,
        description="Hosts, as api.example.com or *.example.com.",
        examples=[["api.example.com"]],
    )

    @field_validator("allow")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if "/" in host or read_pattern(host) == "\0":
                raise ValueError(f"“{host}” is not a host such as api.example.com or *.example.com")
        return value


class Budgets(_Part):
    """What the whole crew may use. What it has used up is refused from then on; when its time is up, it ends."""

    seconds: int = Field(default=900, ge=1, le=86_400, description="How long it may live.")
    messages: int = Field(default=10_000, ge=0, le=10_000_000, description="Messages, requests and tasks.")
    calls: int = Field(default=200, ge=0, le=1_000_000, description="Connections to the outside.")
    bytes: int = Field(
        default=50_000_000, ge=0, le=100_000_000_000, description="Bytes to and from the outside, together."
    )


class MemberSpec(_Part):
    """One role: an agent of this installation, or Python code."""

    role: Name = Field(examples=["writer"], description="What it is in the crew; others can address it by that.")
    blueprint: str | None = Field(default=None, max_length=64, description="The id of an agent, run as it is deployed.")
    code: str | None = Field(
        default=None, min_length=1, max_length=CODE_LIMIT, description="Python; it finds the crew as `crew`."
    )
    starts: Literal["at once", "on request"] = Field(
        default="at once", description="An agent can also run whenever another member sends it a request."
    )
    tier: Name = Field(default="small", description="How large its worker is.")
    tools: frozenset[Tool] = Field(
        default=frozenset({"talk", "share", "tasks", "files"}), strict=False, description="What it may do in the crew."
    )
    environment: dict[Variable, Annotated[str, Field(max_length=4 * KIB)]] = Field(
        default_factory=dict, max_length=64, description="Environment variables of its code. Not for secrets."
    )
    inputs: dict[Annotated[str, Field(max_length=100)], Any] = Field(
        default_factory=dict, max_length=64, description="Values that it starts with."
    )
    seconds: int = Field(default=900, ge=1, le=900, description="How long its code may run.")
    restarts: int = Field(default=1, ge=0, le=5, description="How often it begins anew when its worker is lost.")
    count: int = Field(default=1, ge=1, le=MOST_MEMBERS, description="How many of them.")

    @field_validator("environment")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.startswith(_OURS) or name in _NOT_SET_HERE:
                raise ValueError(f"{name} cannot be set here")
            if "\0" in text:
                raise ValueError(f"{name} holds a character that no environment variable can hold")
        return value

    @model_validator(mode="after")
    def _fits(self) -> MemberSpec:
        if (self.blueprint is None) == (self.code is None):
            raise ValueError("a member is either a blueprint or code")
        if self.code is not None and self.starts != "at once":
            raise ValueError("only a blueprint can start on request; code can wait for requests by itself")
        _sized(self.inputs, CONTEXT_LIMIT, "the inputs")
        return self

    def scopes(self) -> frozenset[str]:
        """What its tokens allow."""
        return frozenset({"crew:read"}).union(*(SCOPES_OF[tool] for tool in self.tools))


class CrewManifest(_Part):
    """A crew to assemble."""

    id: Name = Field(
        description="Its name in the team; only one crew with this name can be at work.", examples=["press"]
    )
    members: tuple[MemberSpec, ...] = Field(min_length=1, max_length=MOST_MEMBERS, strict=False)
    context: dict[Annotated[str, Field(max_length=100)], Any] = Field(
        default_factory=dict, max_length=200, description="What all of them know from the start."
    )
    topics: dict[Topic, dict[str, Any]] = Field(
        default_factory=dict,
        max_length=64,
        description="The JSON Schema that messages on a topic must fit. Topics that are not listed take any message.",
    )
    network: NetworkPolicy = NetworkPolicy()
    budgets: Budgets = Budgets()
    ends_with: Name | None = Field(
        default=None, description="The crew ends when the members with this role have ended; else when all have."
    )
    on_restart: Literal["end", "again"] = Field(
        default="end",
        description="What becomes of it when the server is restarted: it ends, or its members begin anew.",
    )

    @field_validator("topics")
    @classmethod
    def _are_schemas(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for topic, schema in value.items():
            text = _sized(schema, SCHEMA_LIMIT, f"the schema of “{topic}”")
            try:
                rules_of(text)
            except ValueError as error:
                raise ValueError(f"topic “{topic}”: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits(self) -> CrewManifest:
        if (count := sum(member.count for member in self.members)) > MOST_MEMBERS:
            raise ValueError(f"a crew has at most {MOST_MEMBERS} members, and these are {count}")
        _sized(self.context, CONTEXT_LIMIT, "the context")
        if self.ends_with is not None and not any(
            member.role == self.ends_with and member.starts == "at once" for member in self.members
        ):
            raise ValueError(f"the crew is to end with “{self.ends_with}”, and no member that ends has that role")
        for member in self.members:
            if "http" in member.tools and not self.network.allow:
                raise ValueError(
                    f"“{member.role}” has the tool http, and network.allow lists no host that it could call"
                )
        return self


def read_manifest(value: Any) -> CrewManifest:
    """The manifest that a JSON value is. Raises ManifestError."""
    return _read(CrewManifest, value)


def read_member(value: Any) -> MemberSpec:
    """The member that a JSON value is. Raises ManifestError."""
    return _read(MemberSpec, value)


def _read(model: type[M], value: Any) -> M:
    try:
        check_json(value)
        return model.model_validate(value)
    except BlueprintError as error:
        raise ManifestError(error.message) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ManifestError(
            f"The manifest is not right at “{place}”: {said}." if place else f"The manifest is not right: {said}.",
            where={"path": [str(step) for step in first["loc"]]},
            fix="Compare it with the schema at /api/v1/crews/schema.",
        ) from None


def _sized(value: Any, limit: int, what: str) -> str:
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} cannot be written as JSON") from None
    if len(data) > limit:
        raise ValueError(f"{what} may be at most {limit // KIB} KiB")
    return data.decode()
