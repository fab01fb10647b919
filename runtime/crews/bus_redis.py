"""The bus of crews on a Redis server: the same as the one in memory, and what crews share outlives this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
import structlog

from runtime.crews.bus import BusDown, Hear, Told

if TYPE_CHECKING:
    from redis.asyncio.client import PubSub

log = structlog.get_logger()

KEPT_AFTER: Final = 3_600
"""Seconds that anything stays on the Redis server after the crew's time: a server that never came back leaves nothing."""
PATIENCE: Final = 5.0
LOOK: Final = 1.0
PUSHED: Final = "pushed"
_SWAP: Final = """
local now = redis.call('HGET', KEYS[1], ARGV[1])
if (now or 'null') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class RedisBus:
    """One connection that listens for all crews of this process, and a few for everything else."""

    def __init__(self, url: str, home: str) -> None:
        parts = urlsplit(url)
        self.address = f"redis://{parts.hostname}:{parts.port or 6379}"
        self._url = url
        self._prefix = f"factory:{home}:crew"
        self._redis: Any = None
        self._ear: PubSub | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._crews: dict[str, tuple[Hear, int]] = {}
        self._pushed: dict[tuple[str, str], asyncio.Event] = {}
        self._wanted = asyncio.Event()

    def __len__(self) -> int:
        """How many crews are open here."""
        return len(self._crews)

    async def start(self) -> None:
        """Reach the server. Raises BusDown; `open` tries again."""
        from redis.asyncio import Redis

        self._redis = Redis.from_url(
            self._url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, health_check_interval=15
        )
        try:
            await self._redis.ping()
        except Exception as error:  # whatever the client library has for a server that is not there
            await self._redis.aclose()
            self._redis = None
            raise BusDown(
                f"No Redis server answers at {self.address}.",
                fix="Start it, or unset FACTORY_REDIS_URL: crews then talk through this server's memory.",
            ) from error
        self._ear = self._redis.pubsub(ignore_subscribe_messages=True)
        self._hearing = asyncio.get_running_loop().create_task(self._listen(self._ear), name="crew bus")

    async def stop(self) -> None:
        """Close the connections."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
            self._hearing = None
        if self._ear is not None:
            with contextlib.suppress(Exception):
                await self._ear.aclose()  # type: ignore[no-untyped-call]
            self._ear = None
        if self._redis is not None:
            with contextlib.suppress(Exception):
                await self._redis.aclose()
            self._redis = None
        self._crews.clear()

    async def open(self, crew: str, hear: Hear, *, seconds: float) -> None:
        """Listen to the crew's channel."""
        if self._redis is None:
            await self.start()
        async with self._asking():
            assert self._ear is not None
            await self._ear.subscribe(self._name(crew, "talk"))
        self._crews[crew] = (hear, int(seconds) + KEPT_AFTER)
        self._wanted.set()

    async def leave(self, crew: str) -> None:
        """Stop listening."""
        if self._crews.pop(crew, None) is None:
            return
        for (name, _), pushed in self._pushed.items():
            if name == crew:
                pushed.set()
        async with self._asking():
            assert self._ear is not None
            await self._ear.unsubscribe(self._name(crew, "talk"))

    async def close(self, crew: str) -> None:
        """Stop listening and delete the crew's keys."""
        async with self._asking() as redis:
            queues = [item.decode() for item in await redis.smembers(self._name(crew, "queues"))]
            names = [self._name(crew, "queues"), self._name(crew, "values"), self._name(crew, "files")]
            await redis.delete(*names, *(self._queue(crew, queue) for queue in queues))
        await self.leave(crew)

    async def tell(self, crew: str, told: Told) -> None:
        """Publish it; it comes back to who listens here as to everybody."""
        self._life(crew)
        async with self._asking() as redis:
            await redis.publish(self._name(crew, "talk"), orjson.dumps(told))

    async def get(self, crew: str, shelf: str, key: str) -> Any | None:
        """The value."""
        self._life(crew)
        async with self._asking() as redis:
            found = await redis.hget(self._name(crew, shelf), key)
        return None if found is None else orjson.loads(found)

    async def set(self, crew: str, shelf: str, key: str, value: Any) -> None:
        """Keep it."""
        name, life = self._name(crew, shelf), self._life(crew)
        async with self._asking() as redis, redis.pipeline() as pipe:
            pipe.hset(name, key, _text(value))
            pipe.expire(name, life)
            await pipe.execute()

    async def swap(self, crew: str, shelf: str, key: str, was: Any, value: Any) -> bool:
        """Compared and set by the server in one step."""
        name, life = self._name(crew, shelf), self._life(crew)
        async with self._asking() as redis:
            done = await redis.register_script(_SWAP)(keys=[name], args=[key, _text(was), _text(value)])
            if done:
                await redis.expire(name, life)
        return bool(done)

    async def delete(self, crew: str, shelf: str, key: str) -> None:
        """Remove it."""
        self._life(crew)
        async with self._asking() as redis:
            await redis.hdel(self._name(crew, shelf), key)

    async def keys(self, crew: str, shelf: str) -> list[str]:
        """The names."""
        self._life(crew)
        async with self._asking() as redis:
            return sorted(name.decode() for name in await redis.hkeys(self._name(crew, shelf)))

    async def push(self, crew: str, queue: str, task: Told) -> int:
        """Append it, and tell those who wait for one."""
        life, name, queues = self._life(crew), self._queue(crew, queue), self._name(crew, "queues")
        async with self._asking() as redis, redis.pipeline(transaction=True) as pipe:
            pipe.sadd(queues, queue)
            pipe.expire(queues, life)
            pipe.rpush(name, orjson.dumps(task))
            pipe.expire(name, life)
            pipe.publish(self._name(crew, "talk"), orjson.dumps({"crew": crew, "kind": PUSHED, "queue": queue}))
            return int((await pipe.execute())[2])

    async def pop(self, crew: str, queue: str, seconds: float) -> Told | None:
        """Take one; the server gives each to one only."""
        until = time.monotonic() + seconds
        pushed = self._pushed.setdefault((crew, queue), asyncio.Event())
        while True:
            self._life(crew)
            pushed.clear()
            async with self._asking() as redis:
                found = await redis.lpop(self._queue(crew, queue))
            if found is not None:
                task: Told = orjson.loads(found)
                return task
            left = until - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK)):
                    await pushed.wait()

    async def _listen(self, ear: PubSub) -> None:
        while True:
            try:
                if not ear.subscribed:
                    self._wanted.clear()
                    await self._wanted.wait()
                message = await ear.get_message(timeout=LOOK)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the connection was lost; the client subscribes again when it is back
                log.warning("the crew bus is interrupted", reason=str(error)[:200])
                await asyncio.sleep(LOOK)
                continue
            if message is not None:
                self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        try:
            told = orjson.loads(message["data"])
            known = self._crews.get(told["crew"])
            if known is None or message["channel"].decode() != self._name(told["crew"], "talk"):
                return
            if told["kind"] == PUSHED:
                if pushed := self._pushed.get((told["crew"], told["queue"])):
                    pushed.set()
                return
            known[0](told)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            log.warning("something that is no message came over the crew bus")

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        from redis.exceptions import RedisError

        if self._redis is None:
            raise BusDown("The crew bus is closed.")
        try:
            yield self._redis
        except (RedisError, OSError, TimeoutError) as error:
            raise BusDown(
                f"The Redis server at {self.address} does not answer.", fix="Look whether it runs, then try again."
            ) from error

    def _life(self, crew: str) -> int:
        known = self._crews.get(crew)
        if known is None:
            raise BusDown("The crew has ended.", code="crew.ended", status=409)
        return known[1]

    def _name(self, crew: str, what: str) -> str:
        return f"{self._prefix}:{{{crew}}}:{what}"

    def _queue(self, crew: str, queue: str) -> str:
        return self._name(crew, f"queue:{queue}")


def _text(value: Any) -> bytes:
    """One spelling of a value, so that equal ones are equal texts."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
