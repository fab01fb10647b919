"""The door out over HTTP: what it carries, what it brings back, and how it fails."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator

import pytest

from nodes.base import BasicAuth, SecretRef, Signature
from runtime.egress import Egress
from tests.fakes.http_server import Answer, Asked, HttpServer
from tests.runtime.outward import echo, failure, hello, no_secrets, resolving, secrets

# --- secrets ----------------------------------------------------------------------------------------------------------

CANARY = 'c4n/ary "välue"+='


async def test_a_secret_reaches_the_other_side_and_nothing_that_comes_back_shows_it():
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, secrets(key=CANARY, address=f"{server.url}/hook/"))
        reply = await door.request("POST", server.url, headers={"X-Key": SecretRef("key", "Key ")}, json={"a": 1})
        assert server.asked[0].headers["x-key"].encode("latin-1").decode() == f"Key {CANARY}"
        assert "ary" not in reply.text
        assert "•••" in reply.text
        reply = await door.request("GET", SecretRef("address", suffix="T0K3N"))
        assert server.asked[1].target == "/hook/T0K3N"
        assert reply.url == f"{server.url}/…"


@pytest.mark.parametrize(
    "value",
    [
        "http://10.0.0.1/T0PSECRET",
        "ftp://T0PSECRET/",
        "http://user:T0PSECRET@example.com/",
        "http://example.com:22/T0PSECRET",
        "http://example.com/T0PSECRET",
        "T0PSECRET",
    ],
)
async def test_no_error_shows_a_secret_address(value: str):
    async with Egress(resolve=resolving([])) as egress:
        error = await failure(egress.door("t", None, secrets(hook=value)), SecretRef("hook"))
    said = f"{error.message} {error.fix} {error.details} {error.__cause__}"
    assert value not in said
    assert value.rstrip("/").rpartition("/")[2] not in said


async def test_a_secret_with_a_line_break_is_refused_without_showing_it():
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, secrets(key="first\r\nX-Injected: second"))
        error = await failure(door, server.url, headers={"X-Key": SecretRef("key")})
        assert "line break" in error.message
        assert "second" not in error.message
        assert server.asked == []


async def test_a_missing_secret_says_where_to_add_it():
    async with Egress() as egress:
        error = await failure(egress.door("t", None, no_secrets), SecretRef("slack_url"))
    assert error.category == "credential"
    assert "slack_url" in error.message
    assert error.fix and "Settings" in error.fix


async def test_a_signature_is_made_of_the_secret_and_the_body():
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, secrets(signing="k3y"))
        headers = {"X-Signature": Signature("signing", prefix="v1=", body=b"v1.123.{}")}
        await door.request("POST", server.url, headers=headers, content=b"{}")
        digest = hmac.new(b"k3y", b"v1.123.{}", hashlib.sha256).hexdigest()
        assert server.asked[0].headers["x-signature"] == f"v1={digest}"


async def test_a_user_and_password_become_the_basic_header_and_do_not_come_back():
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, secrets(password="p4ssw0rd"))
        reply = await door.request("GET", server.url, headers={"Authorization": BasicAuth("password", user="ada")})
        encoded = base64.b64encode(b"ada:p4ssw0rd").decode()
        assert server.asked[0].headers["authorization"] == f"Basic {encoded}"
        assert encoded not in reply.text


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_json_query_and_headers_arrive():
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        await egress.door("t", None, no_secrets).request(
            "POST", f"{server.url}/a?x=1", params={"y": "ö &"}, json={"text": "grüß"}, headers={"X-A": "grüß"}
        )
        asked = server.asked[0]
    assert asked.json == {"text": "grüß"}
    assert asked.query == {"x": "1", "y": "ö &"}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["x-a"].encode("latin-1").decode() == "grüß"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nB: c"),
        ("X-A", "a\x00"),
        ("X A", "a"),
        ("X:A", "a"),
        ("", "a"),
        ("Host", "inside"),
        ("Content-Length", "0"),
    ],
)
async def test_headers_cannot_be_forged(name: str, value: str):
    async with HttpServer(echo) as server, Egress(exceptions=[server.place]) as egress:
        error = await failure(egress.door("t", None, no_secrets), server.url, headers={name: value})
        assert error.category == "configuration"
        assert server.asked == []


async def test_what_cannot_be_sent_is_refused():
    async with Egress(resolve=resolving(["8.8.8.8"])) as egress:
        door = egress.door("t", None, no_secrets)
        assert "method" in (await failure(door, "http://example.com", "BREW")).message
        assert "JSON" in (await failure(door, "http://example.com", "POST", json={1, 2})).message
        assert (await failure(door, "http://example.com", "POST", content=b"x" * 10_485_761)).category == "limit"


# --- what comes back --------------------------------------------------------------------------------------------------


async def test_any_status_is_an_answer():
    async def teapot(asked: Asked) -> Answer:
        return Answer(418, b"short and stout", {"Content-Type": "text/plain; charset=latin-1"})

    async with HttpServer(teapot) as server, Egress(exceptions=[server.place]) as egress:
        reply = await egress.door("t", None, no_secrets).request("GET", server.url)
    assert (reply.status, reply.text, reply.headers["content-type"]) == (
        418,
        "short and stout",
        "text/plain; charset=latin-1",
    )


def packed(body: bytes, encoding: str):
    async def answer(asked: Asked) -> Answer:
        return Answer(body=body, headers={"content-encoding": encoding})

    return answer


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b"hello", mtime=0), "gzip"),
        (zlib.compress(b"hello"), "deflate"),
        (zlib.compress(b"hello")[2:-4], "deflate"),
    ],
)
async def test_packed_answers_are_unpacked(body: bytes, encoding: str):
    async with HttpServer(packed(body, encoding)) as server, Egress(exceptions=[server.place]) as egress:
        assert (await egress.door("t", None, no_secrets).request("GET", server.url)).text == "hello"


@pytest.mark.parametrize(
    ("body", "encoding", "category"),
    [
        (gzip.compress(b"\0" * 3_000_000, mtime=0), "gzip", "limit"),
        (gzip.compress(b"\0" * 300_000_000, 1, mtime=0), "gzip", "limit"),
        (zlib.compress(b"\0" * 50_000_000), "deflate", "limit"),
        (b"x" * (5 * 1024 * 1024 + 1), "identity", "limit"),
        (b"not packed at all", "gzip", "remote"),
        (gzip.compress(b"hello world" * 99, mtime=0)[:-9], "gzip", "remote"),
        (b"anything", "br", "remote"),
    ],
)
async def test_bombs_and_broken_packing_are_refused(body: bytes, encoding: str, category: str):
    async with HttpServer(packed(body, encoding)) as server, Egress(exceptions=[server.place]) as egress:
        error = await failure(egress.door("t", None, no_secrets), server.url)
    assert error.category == category
    assert error.fix


async def test_an_answer_of_exactly_the_cap_is_read():
    async with (
        HttpServer(packed(b"x" * 5 * 1024 * 1024, "identity")) as server,
        Egress(exceptions=[server.place]) as egress,
    ):
        reply = await egress.door("t", None, no_secrets).request("GET", server.url)
    assert len(reply.content) == 5 * 1024 * 1024


async def test_an_endless_answer_is_cut_at_the_cap():
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    async def answer(asked: Asked) -> Answer:
        return Answer(pieces=endless())

    async with HttpServer(answer) as server, Egress(exceptions=[server.place]) as egress:
        assert (await failure(egress.door("t", None, no_secrets), server.url)).category == "limit"


# --- failures ---------------------------------------------------------------------------------------------------------


async def never(asked: Asked) -> Answer:
    await asyncio.Event().wait()
    return Answer()


async def test_a_slow_server_is_given_up_and_only_a_harmless_call_may_be_repeated():
    async with HttpServer(never) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, no_secrets)
        read = await failure(door, server.url, timeout=0.1)
        posted = await failure(door, server.url, "POST", timeout=0.1)
        keyed = await failure(door, server.url, "POST", timeout=0.1, headers={"Idempotency-Key": "k"})
    assert [error.category for error in (read, posted, keyed)] == ["timeout"] * 3
    assert [error.retry for error in (read, posted, keyed)] == [True, False, True]


async def test_an_answer_that_drips_is_given_up_in_the_time_of_the_whole_call():
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0.02)

    async def answer(asked: Asked) -> Answer:
        return Answer(pieces=drip())

    async with HttpServer(answer) as server, Egress(exceptions=[server.place]) as egress:
        assert (await failure(egress.door("t", None, no_secrets), server.url, timeout=0.3)).category == "timeout"


async def test_nobody_there_says_so_and_may_be_tried_again():
    async with HttpServer(hello) as server:
        place = server.place
    async with Egress(exceptions=[place]) as egress:
        error = await failure(egress.door("t", None, no_secrets), f"http://{place}/", "POST")
    assert "refused the connection" in error.message
    assert (error.category, error.retry) == ("remote", True)


async def test_a_cut_answer_is_an_error_not_a_short_answer():
    async def cut(asked: Asked) -> Answer:
        return Answer(body=b"half", headers={"content-length": "1000"}, cut=True)

    async with HttpServer(cut) as server, Egress(exceptions=[server.place]) as egress:
        door = egress.door("t", None, no_secrets)
        assert (await failure(door, server.url)).retry
        assert not (await failure(door, server.url, "POST")).retry


async def test_a_server_that_does_not_speak_http_is_an_error():
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Egress(exceptions=[place]) as egress:
        door = egress.door("t", None, no_secrets)
        assert (await failure(door, f"http://{place}/")).category == "remote"
        assert "HTTPS" in (await failure(door, f"https://{place}/")).message


async def test_an_unknown_host_says_so():
    async with Egress() as egress:
        error = await failure(egress.door("t", None, no_secrets), "http://no-such-host.invalid/")
    assert "cannot be found" in error.message


async def test_a_cancelled_call_leaves_a_door_that_works():
    async with (
        HttpServer(never) as slow,
        HttpServer(hello) as server,
        Egress(exceptions=[slow.place, server.place]) as egress,
    ):
        door = egress.door("t", None, no_secrets)
        call = asyncio.create_task(door.request("GET", slow.url))
        while not slow.asked:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await door.request("GET", server.url)).text == "hello"
