"""Tokens of crew members: sixty ways to forge or steal one, each tried at a real door, and none of them opens it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.crews import door as doors
from runtime.crews.bus import MemoryBus
from runtime.crews.calls import SCOPE
from runtime.crews.door import Door, Seat
from runtime.crews.exchange import Exchange, Place
from runtime.crews.manifest import Budgets, read_manifest
from runtime.crews.tokens import LIFE, Bond, OutOfScope, TokenRefused, Tokens, sign
from runtime.crews.way_out import WayOut
from runtime.egress import Egress
from runtime.workers.backend import NoWorker

KEY = b"k" * 32
START = 1_800_000_000.0
NONE = b'{"alg":"nOnE"}'


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Ring:
    """Tokens with a clock, a member and what its token says."""

    def __init__(self, *more: str) -> None:
        self.clock = Clock()
        self.tokens = Tokens(KEY, now=self.clock)
        self.bond = self.tokens.bind("acme", "crew_1", "m1", "wrk_1", {"crew:read", "crew:send", *more})
        self.token = self.tokens.issue(self.bond)
        self.claims = self.tokens.accept(self.token, self.bond)

    def forged(self, **changes: Any) -> str:
        """Signed with the right key, but saying something else."""
        return sign(KEY, {**self.claims, **changes})

    def without(self, name: str) -> str:
        return sign(KEY, {key: value for key, value in self.claims.items() if key != name})


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_head(claims: Any, head: Any, key: bytes = KEY, digest: Any = hashlib.sha256) -> str:
    """Signed with the right key and another header."""
    said = f"{text(json.dumps(head).encode())}.{text(json.dumps(claims).encode())}"
    return f"{said}.{text(hmac.digest(key, said.encode(), digest))}"


def parts(ring: Ring) -> list[str]:
    return ring.token.split(".")


Forge = Callable[[Ring], Any]

FORGED: dict[str, Forge] = {
    # nothing, or not a token
    "nothing": lambda r: "",
    "null": lambda r: None,
    "a number": lambda r: 0,
    "true": lambda r: True,
    "a list of it": lambda r: [r.token],
    "a record of it": lambda r: {"token": r.token},
    "dots": lambda r: "..",
    "very long": lambda r: r.token + "A" * 3_000,
    # the header
    "alg none": lambda r: with_head(r.claims, {"alg": "none", "typ": "JWT"}).rsplit(".", 1)[0] + ".",
    "alg none, signed": lambda r: with_head(r.claims, {"alg": "none", "typ": "JWT"}),
    "alg None": lambda r: with_head(r.claims, {"alg": "None"}),
    "alg nOnE with the signature": lambda r: ".".join((text(NONE), *parts(r)[1:])),
    "alg HS384": lambda r: with_head(r.claims, {"alg": "HS384", "typ": "JWT"}, digest=hashlib.sha384),
    "alg HS512": lambda r: with_head(r.claims, {"alg": "HS512", "typ": "JWT"}, digest=hashlib.sha512),
    "alg RS256": lambda r: with_head(r.claims, {"alg": "RS256", "typ": "JWT"}),
    "alg EdDSA": lambda r: with_head(r.claims, {"alg": "EdDSA", "typ": "JWT"}),
    "alg as a list": lambda r: with_head(r.claims, {"alg": ["HS256"], "typ": "JWT"}),
    "no alg": lambda r: with_head(r.claims, {"typ": "JWT"}),
    "kid is a path": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "kid": "../../dev/null"}),
    "kid is SQL": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "kid": "' UNION SELECT 'k"}),
    "kid is an address": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "kid": "http://evil.example"}),
    "jku": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "jku": "https://evil.example/jwks"}),
    "jwk with its own key": lambda r: with_head(
        r.claims, {"alg": "HS256", "typ": "JWT", "jwk": {"kty": "oct", "k": text(KEY)}}
    ),
    "x5c": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "x5c": ["MII"]}),
    "crit": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT", "crit": ["exp"]}),
    "another typ": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JOSE"}),
    "the same header with spaces": lambda r: with_head(r.claims, {"alg": "HS256", "typ": "JWT"}),
    # the signature
    "no signature": lambda r: ".".join(parts(r)[:2]),
    "an empty signature": lambda r: ".".join(parts(r)[:2]) + ".",
    "another key": lambda r: sign(b"x" * 32, r.claims),
    "an empty key": lambda r: sign(b"", r.claims),
    "the key as hex": lambda r: sign(KEY.hex().encode(), r.claims),
    "signed with the header as key": lambda r: sign(parts(r)[0].encode(), r.claims),
    "half of the signature": lambda r: r.token[:-20],
    "one bit of the signature": lambda r: r.token[:-2] + ("A" if r.token[-2] != "A" else "B") + r.token[-1],
    "a second spelling of the signature": lambda r: r.token[:-1] + chr(ord(r.token[-1]) + 1),
    "padding": lambda r: r.token + "=",
    "a newline at the end": lambda r: r.token + "\n",
    "a space before it": lambda r: " " + r.token,
    "a fourth part": lambda r: r.token + ".x",
    "the body of another token": lambda r: ".".join(
        (parts(r)[0], text(json.dumps({**r.claims, "sub": "m2"}).encode()), parts(r)[2])
    ),
    # unicode
    "full-width letters": lambda r: r.token.translate({ord("e"): 0xFF45}),
    "a zero-width space": lambda r: r.token[:10] + "\u200b" + r.token[10:],
    "a NUL": lambda r: r.token + "\0",
    # the claims, signed with the right key
    "no exp": lambda r: r.without("exp"),
    "no iat": lambda r: r.without("iat"),
    "no nbf": lambda r: r.without("nbf"),
    "no jti": lambda r: r.without("jti"),
    "no aud": lambda r: r.without("aud"),
    "no iss": lambda r: r.without("iss"),
    "no tenant": lambda r: r.without("tenant"),
    "no lease": lambda r: r.without("lease"),
    "one claim more": lambda r: r.forged(admin=True),
    "exp as text": lambda r: r.forged(exp=str(r.claims["exp"])),
    "exp with a fraction": lambda r: r.forged(exp=r.claims["exp"] + 0.5),
    "exp far away": lambda r: r.forged(exp=r.claims["exp"] + 86_400),
    "exp without end": lambda r: r.forged(exp=2**62),
    "not yet": lambda r: r.forged(nbf=int(START) + 100),
    "from the future": lambda r: r.forged(iat=int(START) + 100, exp=int(START) + 200),
    "another issuer": lambda r: r.forged(iss="agent-factory.evil"),
    "another audience": lambda r: r.forged(aud=["crew-door"]),
    "another tenant": lambda r: r.forged(tenant="other"),
    "another crew": lambda r: r.forged(crew="crew_2"),
    "another member": lambda r: r.forged(sub="m2"),
    "another worker": lambda r: r.forged(worker="wrk_2"),
    "another lease": lambda r: r.forged(lease="lease_2"),
    "the epoch before": lambda r: r.forged(epoch=0),
    "the epoch as true": lambda r: r.forged(epoch=True),
    "wider scopes": lambda r: r.forged(scopes=sorted([*r.claims["scopes"], "tool:exec"])),
    "all scopes": lambda r: r.forged(scopes=["*"]),
    "scopes as text": lambda r: r.forged(scopes="crew:read crew:send"),
    "narrower scopes": lambda r: r.forged(scopes=["crew:read"]),
    "a jti of its own": lambda r: r.forged(jti="made-up"),
    "jti as a list": lambda r: r.forged(jti=[r.claims["jti"]]),
    "claims that are a list": lambda r: sign(KEY, [r.claims]),
    "claims that are no JSON": lambda r: r.token.replace(parts(r)[1], text(b"{")),
}


def expired(ring: Ring) -> str:
    ring.clock.now += LIFE
    return ring.token


def released(ring: Ring) -> str:
    ring.tokens.release(ring.bond)
    return ring.token


def revoked(ring: Ring) -> str:
    ring.tokens.revoke(ring.claims["jti"])
    return ring.token


def new_epoch(ring: Ring) -> str:
    ring.tokens.revoke_crew("crew_1")
    return ring.token


def of_another(**changes: Any) -> Forge:
    """A good token of somebody else."""

    def steal(ring: Ring) -> str:
        theirs = {"tenant": "acme", "crew": "crew_1", "member": "m1", "worker": "wrk_1", **changes}
        bond = ring.tokens.bind(**theirs, scopes=ring.bond.scopes)
        return ring.tokens.issue(bond)

    return steal


STOLEN: dict[str, Forge] = {
    "stale": expired,
    "its lease is over": released,
    "taken back by its id": revoked,
    "the crew began anew": new_epoch,
    "of the member beside it": of_another(member="m2", worker="wrk_2"),
    "of another crew": of_another(crew="crew_2", worker="wrk_3"),
    "of another team": of_another(tenant="other", crew="crew_3"),
    "of another worker of the same member": of_another(worker="wrk_9"),
    "of an earlier lease of the same member": of_another(),
}
ALL = {**FORGED, **STOLEN}


def test_there_are_more_than_sixty() -> None:
    assert len(FORGED) >= 60


@pytest.mark.parametrize("kind", ALL)
def test_a_forged_or_stolen_token_is_refused(kind: str) -> None:
    ring = Ring()
    with pytest.raises(TokenRefused) as refusal:
        ring.tokens.accept(ALL[kind](ring), ring.bond, "crew:read")
    assert refusal.value.message == "This is not a token for this place."


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[tuple[Ring, Door, Exchange]]:
    """A door with everything behind it; whoever calls counts as inside the worker."""
    ring, bus = Ring("tool:exec"), MemoryBus()
    manifest = read_manifest({"id": "press", "members": [{"role": "a", "code": "pass"}]})
    exchange = Exchange("crew_1", manifest, bus)
    await exchange.open(60)
    exchange.join(Place("m1", "a"))
    gate = asyncio.Event()
    gate.set()
    way = WayOut.of(Egress(), ("allowed.example",), Budgets(), gate)
    seat = Seat(ring.bond, ring.tokens, exchange, way, gate, lambda pid: pid > 0, lambda: [])
    opened = Door(tmp_path, seat)
    await opened.open()
    yield ring, opened, exchange
    await opened.close()


async def ask(path: Path, **call: Any) -> dict[str, Any]:
    """Call at a door; what it answers, or nothing when it hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    body = json.dumps(call).encode("utf-8", "surrogatepass")
    writer.write(struct.pack(">I", len(body)) + body)
    try:
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        answer: dict[str, Any] = json.loads(await reader.readexactly(size))
        return answer
    except (asyncio.IncompleteReadError, ConnectionError):
        return {}
    finally:
        writer.close()


async def proxied(path: Path, token: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Bearer {token}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return line


async def test_none_of_them_opens_a_real_door(door: tuple[Ring, Door, Exchange]) -> None:
    ring, opened, exchange = door
    good = await ask(opened.path, do="publish", topic="t", body=1, token=ring.token)
    assert good == {"ok": 0}
    assert (await proxied(opened.path, ring.token)).startswith(
        b"HTTP/1.1 403"
    )  # heard, and the host is not on the list
    accepted = []
    for kind, forge in FORGED.items():
        forged = forge(ring)
        answer = await ask(opened.path, do="publish", topic="t", body=kind, token=forged)
        if answer.get("error", {}).get("code") not in ("crew.token", "crew.message"):
            accepted.append(kind)
        in_a_header = isinstance(forged, str) and forged.isascii() and forged.isprintable() and forged == forged.strip()
        if in_a_header and not (await proxied(opened.path, forged)).startswith(b"HTTP/1.1 407"):
            accepted.append(f"{kind}, at the way out")
    assert accepted == []
    assert exchange.messages == 1


async def test_who_does_not_call_from_inside_the_worker_is_not_even_heard(tmp_path: Path) -> None:
    ring, bus = Ring(), MemoryBus()
    exchange = Exchange("crew_1", read_manifest({"id": "p", "members": [{"role": "a", "code": "pass"}]}), bus)
    gate = asyncio.Event()
    gate.set()
    way = WayOut.of(Egress(), (), Budgets(), gate)
    opened = Door(tmp_path, Seat(ring.bond, ring.tokens, exchange, way, gate, lambda pid: False, lambda: []))
    await opened.open()
    assert await ask(opened.path, do="members", token=ring.token) == {}
    assert opened.refused == 1
    await opened.close()
    assert not opened.path.exists()
    gone = Door(tmp_path / "gone", Seat(ring.bond, ring.tokens, exchange, way, gate, lambda pid: False, lambda: []))
    with pytest.raises(NoWorker):
        await gone.open()


async def test_whatever_is_sent_to_a_door_makes_no_accident(
    door: tuple[Ring, Door, Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, opened, _ = door
    accidents: list[Any] = []
    monkeypatch.setattr(doors.log, "exception", lambda *said, **more: accidents.append(said))
    random = Random(7)
    calls = [
        {"do": do, "token": ring.token, field: value}
        for do in (*(model.model_fields["do"].annotation.__args__[0] for model in SCOPE), "dance", None, 7)
        for field, value in (
            ("topic", None), ("topic", "x" * 100), ("key", ""), ("key", "k"), ("queue", "q"), ("body", {"a": [1e308] * 9}),
            ("seconds", -1), ("seconds", "1"), ("to", "m1"), ("name", "../etc/passwd"), ("data", "!"), ("member", "m2"),
        )
    ]  # fmt: skip
    frames = [json.dumps(call).encode() for call in calls]
    frames += [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 50_000, b'{"do": ' * 500, b"0" * 70_000]
    frames += [random.randbytes(random.randrange(200)) for _ in range(40)]
    for frame in frames:
        answer = await raw(opened.path, struct.pack(">I", len(frame)) + frame)
        assert b'"ok"' in answer or b'"error"' in answer, frame[:100]
    for data in (
        b"GET / HTTP/1.1\r\n\r\n", b"CONNECT\r\n\r\n", b"\x01" * 100, b"\0\xff\xff\xff", b"A" * 70_000,
        b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Bearer \xff\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\nProxy-Authorization: Bearer " + ring.token.encode() + b"\r\n folded: 1\r\n\r\n",
        b"CONNECT [::1 HTTP/1.1\r\nProxy-Authorization: Bearer " + ring.token.encode() + b"\r\n\r\n",
        b"CONNECT user@x:443 HTTP/1.1\r\nProxy-Authorization: Bearer " + ring.token.encode() + b"\r\n\r\n",
    ):  # fmt: skip
        assert not (await raw(opened.path, data)).startswith(b"HTTP/1.1 200")
    assert accidents == []
    assert (await ask(opened.path, do="members", token=ring.token)) == {"ok": []}


async def raw(path: Path, data: bytes) -> bytes:
    """What a door says to some bytes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read(100_000)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_revoking_is_felt_by_the_next_call_on_an_open_line(door: tuple[Ring, Door, Exchange]) -> None:
    ring, opened, _ = door
    reader, writer = await asyncio.open_unix_connection(str(opened.path))

    async def again() -> dict[str, Any]:
        body = json.dumps({"do": "members", "token": ring.token}).encode()
        writer.write(struct.pack(">I", len(body)) + body)
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        answer: dict[str, Any] = json.loads(await reader.readexactly(size))
        return answer

    assert await again() == {"ok": []}
    ring.tokens.revoke_crew("crew_1")
    assert (await again())["error"]["code"] == "crew.token"
    writer.close()


async def test_a_living_lease_gets_fresh_tokens_and_a_dead_one_none(tmp_path: Path) -> None:
    ring, bus = Ring(), MemoryBus()
    exchange = Exchange("crew_1", read_manifest({"id": "p", "members": [{"role": "a", "code": "pass"}]}), bus)
    gate = asyncio.Event()
    gate.set()
    way = WayOut.of(Egress(), (), Budgets(), gate)
    seat = Seat(ring.bond, ring.tokens, exchange, way, gate, lambda pid: True, lambda: [])
    opened = Door(tmp_path, seat, refresh=0.01)
    await opened.open()
    exchange.join(Place("m1", "a"))
    reader, writer = await asyncio.open_unix_connection(str(opened.path))
    body = json.dumps({"do": "renew", "token": ring.token}).encode()
    writer.write(struct.pack(">I", len(body)) + body)
    fresh = ""
    while not fresh:
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        fresh = json.loads(await reader.readexactly(size)).get("token", "")
    assert fresh != ring.token
    ring.tokens.accept(fresh, ring.bond, "crew:read")
    ring.tokens.release(ring.bond)
    with pytest.raises(TokenRefused):
        ring.tokens.issue(ring.bond)
    writer.close()
    await opened.close()


async def test_nothing_is_said_into_what_passes_through_the_way_out(tmp_path: Path) -> None:
    """Fresh tokens go to who asked for them: bytes in the middle of somebody's download would break it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ring, bus = Ring("tool:exec"), MemoryBus()
    exchange = Exchange("crew_1", read_manifest({"id": "p", "members": [{"role": "a", "code": "pass"}]}), bus)
    exchange.join(Place("m1", "a"))
    gate = asyncio.Event()
    gate.set()
    way = WayOut.of(Egress(exceptions=[f"127.0.0.1:{port}"]), ("127.0.0.1",), Budgets(), gate)
    opened = Door(
        tmp_path, Seat(ring.bond, ring.tokens, exchange, way, gate, lambda pid: True, lambda: []), refresh=0.001
    )
    await opened.open()
    reader, writer = await asyncio.open_unix_connection(str(opened.path))
    writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nProxy-Authorization: Bearer {ring.token}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    for number in range(50):
        writer.write(b"%03d" % number)
        assert await reader.readexactly(3) == b"%03d" % number
    silent, other = await asyncio.open_unix_connection(str(opened.path))
    issued = len(ring.tokens._leases[ring.bond.lease].given)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(silent.read(1), 0.02)
    assert len(ring.tokens._leases[ring.bond.lease].given) == issued
    for line in (writer, other):
        line.close()
    await opened.close()
    server.close()


def test_scopes_are_those_of_the_lease() -> None:
    ring = Ring()
    ring.tokens.accept(ring.token, ring.bond, "crew:send")
    with pytest.raises(OutOfScope):
        ring.tokens.accept(ring.token, ring.bond, "tool:exec")
    with pytest.raises(TokenRefused):  # nobody who shows another's token learns of scopes
        ring.tokens.accept(ring.token, replace(ring.bond, worker="wrk_2"), "tool:exec")
    with pytest.raises(ValueError, match="unknown"):
        ring.tokens.bind("acme", "crew_1", "m1", "w", {"admin"})


def test_a_token_lives_five_minutes_whatever_the_clock_on_the_wall_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens()
    bond = tokens.bind("acme", "crew_1", "m1", "w", {"crew:read"})
    claims = tokens.accept(tokens.issue(bond), bond)
    assert claims["exp"] - claims["iat"] == 300
    monkeypatch.setattr("time.time", lambda: 0.0)
    tokens.accept(tokens.issue(bond), bond)


@given(st.text(max_size=200) | st.binary(max_size=200) | st.integers() | st.none() | st.lists(st.text()))
def test_whatever_is_shown_is_refused_without_an_accident(shown: Any) -> None:
    ring = Ring()
    with pytest.raises(TokenRefused):
        ring.tokens.accept(shown, ring.bond)


@given(st.data())
def test_no_change_of_one_character_is_accepted(data: st.DataObject) -> None:
    ring = Ring()
    place = data.draw(st.integers(0, len(ring.token) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != ring.token[place]))
    with pytest.raises(TokenRefused):
        ring.tokens.accept(ring.token[:place] + other + ring.token[place + 1 :], ring.bond)


@given(st.lists(st.sampled_from(["bind", "issue", "release", "revoke", "epoch"]), max_size=30), st.data())
def test_only_what_was_given_out_and_not_taken_back_is_accepted(steps: list[str], data: st.DataObject) -> None:
    tokens = Tokens(KEY, now=Clock())
    bonds: list[Bond] = []
    good: dict[str, Bond] = {}
    given_out: dict[str, Bond] = {}
    for number, step in enumerate(steps):
        if step == "bind" or not bonds:
            bonds.append(tokens.bind("acme", f"crew_{number % 2}", f"m{number}", "w", {"crew:read"}))
            continue
        bond = data.draw(st.sampled_from(bonds))
        if step == "issue" and tokens.lives(bond):
            token = tokens.issue(bond)
            good[token] = given_out[token] = bond
        elif step == "release":
            tokens.release(bond)
            good = {token: its for token, its in good.items() if its != bond}
        elif step == "revoke" and good:
            token = data.draw(st.sampled_from(sorted(good)))
            tokens.revoke(tokens.accept(token, good.pop(token))["jti"])
        elif step == "epoch":
            tokens.revoke_crew(bond.crew)
            good = {token: its for token, its in good.items() if its.crew != bond.crew}
    for token, bond in given_out.items():
        for other in bonds:
            try:
                tokens.accept(token, other)
                assert token in good
                assert other == bond
            except TokenRefused:
                assert token not in good or other != bond
