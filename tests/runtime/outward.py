"""What the tests of the door out have in common: secrets, a resolver that says what a test wants, small servers."""

from collections.abc import Sequence

import pytest

from nodes.base import Http, NodeError, SecretRef
from nodes.errors import NotFound
from tests.fakes.http_server import Answer, Asked


async def no_secrets(name: str) -> str:
    raise NotFound(f"{name} is not there.")


def secrets(**known: str):
    async def find(name: str) -> str:
        if name not in known:
            raise NotFound(f"{name} is not there.")
        return known[name]

    return find


def resolving(*answers: Sequence[str]):
    """A resolver that gives one answer after another; it counts."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    resolve.asked = asked  # type: ignore[attr-defined]
    return resolve


async def hello(asked: Asked) -> Answer:
    return Answer(body="hello")


async def echo(asked: Asked) -> Answer:
    return Answer(body={"headers": dict(asked.headers), "body": asked.body.decode(), "target": asked.target})


async def failure(door: Http, url: str | SecretRef, method: str = "GET", **more) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await door.request(method, url, **more)
    return caught.value
