"""What an operator can set: environment variables that begin with FACTORY_, with defaults that work on one machine."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nodes.errors import FactoryError
from runtime.fleet import SMALL, PoolRules, default_rules
from runtime.workers.profiles import PROFILES, BadProfile, Profile, read_sizes

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class SettingsError(FactoryError):
    """A setting is wrong or not safe; the message says which and why."""

    code = "settings"


class Settings(BaseSettings):
    """All settings. `factory doctor` shows what they lead to."""

    model_config = SettingsConfigDict(env_prefix="FACTORY_", extra="ignore", frozen=True)

    home: Path = Field(default=Path(".factory"), description="Folder for the database, keys and files.")
    database_url: str | None = Field(
        default=None, description="PostgreSQL address; SQLite in the home folder if unset."
    )
    lease_seconds: float = Field(
        default=10.0, ge=1, le=300, description="With PostgreSQL: a server silent for so long is taken over by another."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port to listen on.")
    public_url: str = Field(default="", description="The https address that people use, when there is one.")
    behind_proxy: bool = Field(default=False, description="A proxy in front adds TLS and checks the Host header.")
    docker: str = Field(default="auto", description="auto, off, or the address of a Docker engine.")
    user: str = Field(default="", description="Started as root: the user that the web process becomes.")
    worker_sizes: Annotated[dict[str, Profile], NoDecode] = Field(
        default={}, description="Worker sizes of your own, such as reports:like=data,memory=768."
    )
    pool_size: int = Field(default=2, ge=0, le=64, description="How many isolated workers are kept warm.")
    pool_floor: Annotated[dict[str, float], NoDecode] = Field(
        default={}, description="The same for each size of worker, such as small=2,medium=1."
    )
    pool_ceiling: Annotated[dict[str, float], NoDecode] = Field(
        default={}, description="How many workers there may be at most when much is to do, such as small=16,large=2."
    )
    pool_ttl: Annotated[dict[str, float], NoDecode] = Field(
        default={}, description="Seconds after which a worker that is not wanted hibernates, such as small=600."
    )
    worker_runtime: Literal["", "runsc"] = Field(
        default="", description="runsc: workers have a kernel of their own, gVisor's, if the engine has it."
    )
    model: str = Field(default="", description="The default language model, as litellm names it.")
    model_base_url: str = Field(default="", description="Address of the model's service, when it is not the usual one.")
    model_key: SecretStr = Field(default=SecretStr(""), description="Key for the model's service.")
    model_price: Annotated[tuple[float, float] | None, NoDecode] = Field(
        default=None,
        description="What the model costs, where the price list does not know it: dollars for a million tokens read and written, as in 0.15,0.60.",
    )
    run_budget: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description="What the models of a run may cost, in dollars; teams can only lower it.",
    )
    day_budget: float | None = Field(default=None, ge=0, le=1e9, description="The same for a team's day.")
    month_budget: float | None = Field(default=None, ge=0, le=1e9, description="The same for a team's month.")
    redis_url: SecretStr = Field(
        default=SecretStr(""), description="Redis server that crews talk over, redis://host:6379; else in memory."
    )
    smtp_url: SecretStr = Field(default=SecretStr(""), description="Mail server: smtp://user:password@host:587")
    allow_private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Inside addresses that agents may call, separated by commas."
    )

    @field_validator("allow_private_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("model_price", mode="before")
    @classmethod
    def _is_price(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        parts = value.split(",")
        try:
            prices = [float(part) for part in parts]
        except ValueError:
            prices = []
        if len(prices) != 2 or not all(0 <= each < 1e6 for each in prices):
            raise ValueError("it must be two amounts in dollars, as in 0.15,0.60")
        return tuple(prices)

    @field_validator("pool_floor", "pool_ceiling", "pool_ttl", mode="before")
    @classmethod
    def _by_size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        # A number alone is for the usual size.
        return {(name.strip() if equals else "small"): (n if equals else name).strip() for name, equals, n in parts}

    @field_validator("worker_sizes", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        try:
            return read_sizes(value) if isinstance(value, str) else value
        except BadProfile as error:
            raise ValueError(error.message) from None

    @field_validator("pool_floor", "pool_ceiling", "pool_ttl")
    @classmethod
    def _known_sizes(cls, value: dict[str, float], told: ValidationInfo) -> dict[str, float]:
        known = {**PROFILES, **told.data.get("worker_sizes", {})}
        for name, number in value.items():
            if name not in known:
                raise ValueError(f"there is no worker size {name}; there are {', '.join(known)}")
            if not 0 <= number <= 86_400:
                raise ValueError(f"{number:g} is not a number that {name} can have")
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("public_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/")):
            raise ValueError("it must look like https://factory.example.com, without a path")
        return value.rstrip("/")

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Settings from the environment. Raises SettingsError with one sentence per wrong setting."""
        try:
            return cls(**given)
        except ValidationError as error:
            wrong = [f"FACTORY_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors()]
            raise SettingsError("A setting is wrong. " + "; ".join(wrong), fix="Correct it and start again.") from None

    def pools(self) -> dict[str, PoolRules]:
        """What is said about the pools, by the size of the workers."""
        pools = {}
        for name in self.pool_floor.keys() | self.pool_ceiling.keys() | self.pool_ttl.keys():
            floor = int(self.pool_floor.get(name, self.pool_size if name == SMALL else 0))
            usual = default_rules(name, floor, forecast=self.pool_size > 0 or floor > 0, of=self.sizes()[name])
            ceiling = max(1, floor, int(self.pool_ceiling.get(name, usual.ceiling or 0)))
            pools[name] = replace(usual, ceiling=ceiling, ttl=self.pool_ttl.get(name, usual.ttl))
        return pools

    def sizes(self) -> dict[str, Profile]:
        """All sizes of workers that there are."""
        sizes = {**PROFILES, **self.worker_sizes}
        if self.worker_runtime:
            return {name: replace(size, runtime=self.worker_runtime) for name, size in sizes.items()}
        return sizes

    @property
    def https(self) -> bool:
        """Whether people reach us over TLS, so that cookies can demand it."""
        return self.public_url.startswith("https://")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        return self.host in _LOOPBACK

    @property
    def url(self) -> str:
        """The address to print."""
        return self.public_url or f"http://{'127.0.0.1' if self.is_loopback else self.host}:{self.port}"

    def knows_host(self, host: str) -> bool:
        """Whether a Host header may be ours. Anything else is somebody's DNS pointing at us."""
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
        if self.public_url and host == urlsplit(self.public_url).netloc:
            return True
        if self.behind_proxy and not self.public_url:
            return bool(name)
        return name in _LOOPBACK and not self.https

    def origin_for(self, host: str, forwarded_proto: str = "") -> str:
        """The one origin that may send us something when the Host header is `host`."""
        if self.public_url and host == urlsplit(self.public_url).netloc:
            return self.public_url
        scheme = "https" if self.behind_proxy and forwarded_proto == "https" else "http"
        return f"{scheme}://{host}"

    def check_reach(self, *, has_admin: bool) -> None:
        """Refuse to be reachable from other machines before that is safe."""
        if self.is_loopback:
            return
        if not has_admin:
            raise SettingsError(
                f"Nobody has set this factory up yet, so it does not listen on {self.host}.",
                fix="Start it once without FACTORY_HOST, open the set-up link on this machine (or run "
                "`factory user add`), then start it again.",
            )
        if not (self.https or self.behind_proxy):
            raise SettingsError(
                f"It does not listen on {self.host} without TLS: passwords would travel in the clear.",
                fix="Put a proxy with TLS in front and set FACTORY_PUBLIC_URL=https://… (or FACTORY_BEHIND_PROXY=1).",
            )

    def key(self, name: str) -> bytes:
        """A 256-bit key of this installation, made on first use, readable by its owner only."""
        folder = self.home / "keys"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / name
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = bytes.fromhex(path.read_text().strip())
        else:
            key = secrets.token_bytes(32)
            with os.fdopen(handle, "w") as file:
                file.write(key.hex())
                file.flush()
                os.fsync(file.fileno())
        if len(key) != 32:
            raise SettingsError(f"The key file {path} is damaged.", fix="Restore it from a backup.")
        return key

    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home / 'factory.db'}"


Theme = Literal["light", "dark", "system"]
