"""Reading the addresses that people and blueprints write: one spelling, or a refusal that says what is wrong."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

import httpx

from nodes.base import NodeError


@dataclass(frozen=True, slots=True)
class Target:
    """An address that was read: where it goes, in one spelling."""

    url: httpx.URL
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.url.scheme, self.host, self.port


def read_target(url: str) -> Target:
    """The address as a target. Raises NodeError for what is not a plain http or https address."""
    try:
        parsed = httpx.URL(str(url).strip())
        host = _host(parsed.raw_host.decode("ascii"))
    except (httpx.InvalidURL, ValueError, TypeError):
        raise refused("The address cannot be read.", "Write it as in https://api.example.com/orders.") from None
    if parsed.scheme not in ("http", "https"):
        raise refused(
            "Only addresses that begin with http:// or https:// can be called.",
            "Write it as in https://api.example.com/orders.",
        )
    if not host:
        raise refused("The address names no host.", "Write it as in https://api.example.com/orders.")
    if parsed.userinfo:
        raise refused(
            "An address may not carry a user name or password.",
            "Put the password into a secret and send it as a header.",
        )
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    if not 0 < port < 65536:
        raise refused(f"{port} is not a port.", "Write it as in https://api.example.com/orders.")
    return Target(parsed.copy_with(host=host, fragment=None), host, port)


def _host(raw: str) -> str:
    """The one spelling of a host. Raises ValueError for what only some programs would read as an address."""
    host = unicodedata.normalize("NFKC", raw).lower().rstrip(".")
    try:
        return str(ip_address(host))
    except ValueError:
        last = host.rpartition(".")[2]
        if last.isdigit() or last.startswith("0x") or ":" in host:
            raise
        if not all(char.isalnum() or char in "-_." for char in host):
            raise
        return host


@lru_cache(maxsize=1024)
def read_pattern(text: str) -> str:
    """An allowed host, `api.example.com` or `*.example.com`, in the spelling of targets."""
    wild, bare = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        return wild + read_target(f"http://[{bare}]" if ":" in bare and "[" not in bare else f"http://{bare}").host
    except NodeError:
        return "\0"  # matches no host: a wrong pattern must not open the door


def matches(host: str, pattern: str) -> bool:
    """Whether the host is the one, or one of those, that the pattern allows."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def read_exception(text: str) -> str:
    """A `host:port` that the operator trusts, in the spelling of targets."""
    target = read_target(text if "://" in text else f"http://{text}")
    return f"{target.host}:{target.port}"


def refused(message: str, fix: str) -> NodeError:
    """A call that may not be made."""
    return NodeError(message, category="configuration", fix=fix, code="egress.refused")
