"""The door out over HTTP: where it may lead."""

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import NodeError, SecretRef
from runtime.addresses import Bridges, is_own, is_public
from runtime.egress import Egress
from tests.fakes.certificates import certificate
from tests.fakes.http_server import Answer, Asked, HttpServer
from tests.runtime.outward import failure, hello, no_secrets, resolving, secrets

DENIED = [
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.254",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.17.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:db8::1",
    "2001:10::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2a00:1450::5efe:7f00:1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
SPELLINGS = [
    "127.1",
    "127.0.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "127.0.0.1.",
    "0",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]",
    "LOCALHOST",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


# --- where it may lead -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", DENIED)
async def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str):
    assert not is_public(address)
    async with Egress() as egress:
        door = egress.door("t", None, no_secrets)
        literal = f"[{address.replace('%', '%25')}]" if ":" in address else address
        assert (await failure(door, f"http://{literal}/")).category == "configuration"


@pytest.mark.parametrize("address", DENIED)
async def test_a_name_that_leads_there_is_refused_too(address: str):
    async with Egress(resolve=resolving([address]), exceptions=["127.0.0.1:9"]) as egress:
        error = await failure(egress.door("t", None, no_secrets), "http://innocent.example.com/")
    assert error.category == "configuration"
    assert address not in error.message, "what internal names resolve to is nobody's business"


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_odd_spellings_of_this_machine_are_refused(spelling: str):
    async with HttpServer(hello) as server, Egress(ports=[server.port]) as egress:
        error = await failure(egress.door("t", None, no_secrets), f"http://{spelling}:{server.port}/")
    assert error.category == "configuration"
    assert server.connections == 0


@pytest.mark.parametrize("address", PUBLIC)
async def test_public_addresses_are_permitted(address: str):
    async with Egress() as egress:
        await egress.permit(f"https://{f'[{address}]' if ':' in address else address}/")


@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_wrapping_makes_an_inner_address_public(inner):
    for wrapped in (f"::ffff:{inner}", f"64:ff9b::{inner}", f"::{inner}", f"::ffff:0:{inner}"):
        assert not is_public(wrapped)
    word = f"{int(inner) >> 16:x}:{int(inner) & 0xFFFF:x}"
    assert not is_public(f"2002:{word}::1")


async def test_a_name_with_one_inner_address_among_public_ones_is_refused():
    async with Egress(resolve=resolving(["8.8.8.8", "10.0.0.1"])) as egress:
        assert "public internet" in (await failure(egress.door("t", None, no_secrets), "http://mixed.example/")).message


async def test_own_addresses_and_bridges_are_known(tmp_path: Path):
    assert is_own("127.0.0.1")
    assert not is_own("8.8.8.8")
    (tmp_path / "route").write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "br-1234 0000A82C 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
        "eth0 00000808 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
    )
    from ipaddress import ip_address

    bridges = Bridges(tmp_path)
    assert ip_address("44.168.3.4") in bridges, "a container network on public numbers"
    assert ip_address("8.8.8.8") not in bridges


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("gopher://example.com/", "http://"),
        ("javascript:alert(1)", "http://"),
        ("//example.com/", "http://"),
        ("http:///path", "no host"),
        ("", "http://"),
        ("http://user:pass@example.com/", "user name"),
        ("http://user@example.com/", "user name"),
        ("http://example.com:22/", "Port 22"),
        ("http://example.com:6379/", "Port 6379"),
        ("http://example.com:99999/", "port"),
        ("http://exa mple.com/", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://example.com\t/", "cannot be read"),
        ("http://ex\u0000ample.com/", "cannot be read"),
        ("http://a\\@b/", "user name"),
    ],
)
async def test_what_is_not_a_plain_address_is_refused(url: str, said: str):
    async with Egress(resolve=resolving(["8.8.8.8"])) as egress:
        error = await failure(egress.door("t", None, no_secrets), url)
    assert said in error.message
    assert error.category == "configuration"
    assert not error.retry
    assert error.fix


@given(st.text(max_size=60))
def test_any_text_as_an_address_gives_a_typed_error_or_a_target(text: str):
    try:
        target = Egress().check("http://" + text, None)
    except NodeError:
        return
    assert target.port in (80, 443, 8080, 8443)
    assert target.host.isascii()


async def test_an_exception_of_the_operator_opens_one_port_of_one_host():
    async with HttpServer(hello) as first, HttpServer(hello) as second, Egress(exceptions=[first.place]) as egress:
        door = egress.door("t", None, no_secrets)
        assert (await door.request("GET", first.url)).text == "hello"
        assert (await failure(door, second.url)).category == "configuration"
        assert second.connections == 0


async def test_allowed_hosts_are_names_or_every_name_below_one():
    async with Egress(resolve=resolving(["8.8.8.8"])) as egress:
        allowed = ["api.example.com", "*.example.org", "MÜNCHEN.de", "not a host"]
        for host in ("api.example.com", "API.EXAMPLE.COM.", "a.example.org", "a.b.example.org", "xn--mnchen-3ya.de"):
            await egress.permit(f"https://{host}/", allowed)
        for host in ("example.com", "www.api.example.com", "example.org", "badexample.org", "api.example.com.evil.net"):
            with pytest.raises(NodeError, match="allowed hosts"):
                await egress.permit(f"https://{host}/", allowed)


async def test_without_allowed_hosts_all_public_ones_are_open_unless_the_operator_closed_them():
    url = "https://www.example.com/"
    async with Egress(resolve=resolving([])) as egress:
        for nothing in (None, []):
            assert (await failure(egress.door("t", nothing, no_secrets), url)).category == "remote"
    async with Egress(resolve=resolving([]), closed=True) as egress:
        assert "allowed hosts" in (await failure(egress.door("t", None, no_secrets), url)).message


# --- between the check and the connection -----------------------------------------------------------------------------


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_checked():
    async with HttpServer(hello) as server:
        resolve = resolving(["127.0.0.1"], ["8.8.8.8"])
        async with Egress(exceptions=[f"service.internal:{server.port}"], resolve=resolve) as egress:
            door = egress.door("t", None, no_secrets)
            assert (await door.request("GET", f"http://service.internal:{server.port}/")).text == "hello"
            assert resolve.asked == ["service.internal"]
            assert server.asked[0].headers["host"] == f"service.internal:{server.port}"


async def test_a_name_that_turns_to_an_inner_address_is_refused_at_the_next_connection():
    async def closing(asked: Asked) -> Answer:
        return Answer(headers={"connection": "close"})

    async with HttpServer(closing) as server:
        resolve = resolving(["127.0.0.1"], ["169.254.169.254"])
        async with Egress(exceptions=[server.place], ports=[server.port], resolve=resolve) as egress:
            door = egress.door("t", None, no_secrets)
            url = f"http://rebinding.example:{server.port}/"
            assert (await door.request("GET", url)).status == 200
            assert "public internet" in (await failure(door, url)).message


async def test_the_next_address_is_tried_when_the_first_does_not_answer():
    async with HttpServer(hello) as server:
        resolve = resolving(["::1", "127.0.0.1"])
        async with Egress(exceptions=[f"two.internal:{server.port}"], resolve=resolve) as egress:
            door = egress.door("t", None, no_secrets)
            assert (await door.request("GET", f"http://two.internal:{server.port}/")).status == 200


async def test_https_checks_the_name_although_the_connection_goes_to_a_number(tmp_path: Path):
    served, trusted = certificate(tmp_path, "api.example.test")
    async with HttpServer(hello, tls=served) as server:
        names = [f"api.example.test:{server.port}", f"other.example.test:{server.port}"]
        async with Egress(exceptions=names, resolve=resolving(["127.0.0.1"]), tls=trusted) as egress:
            door = egress.door("t", None, no_secrets)
            assert (await door.request("GET", f"https://{names[0]}/")).text == "hello"
            assert "certificate" in (await failure(door, f"https://{names[1]}/")).message
        async with Egress(exceptions=names, resolve=resolving(["127.0.0.1"])) as egress:
            error = await failure(egress.door("t", None, no_secrets), f"https://{names[0]}/")
            assert "certificate" in error.message
            assert error.category == "remote"


async def test_tenants_do_not_share_connections_and_one_tenant_reuses_its_own():
    async with HttpServer(hello) as server, Egress(exceptions=[server.place]) as egress:
        for tenant in ("a", "a", "a", "b"):
            await egress.door(tenant, None, no_secrets).request("GET", server.url)
        assert [asked.connection for asked in server.asked] == [1, 1, 1, 2]


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch):
    async with HttpServer(hello) as server, HttpServer(hello) as proxy, Egress(exceptions=[server.place]) as egress:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await egress.door("t", None, no_secrets).request("GET", server.url)
        assert proxy.connections == 0


# --- redirects --------------------------------------------------------------------------------------------------------


def redirecting(to: str, status: int = 302, **hops: str):
    async def answer(asked: Asked) -> Answer:
        if asked.path == "/end":
            return Answer(body={"method": asked.method, "headers": dict(asked.headers), "body": asked.body.decode()})
        return Answer(status, headers={"location": to})

    return answer


@pytest.mark.parametrize(
    "inner",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_the_inside_is_refused(inner: str):
    async with HttpServer(redirecting(inner)) as server, Egress(exceptions=[server.place]) as egress:
        error = await failure(egress.door("t", None, no_secrets), server.url)
    assert error.category == "configuration"


async def test_a_redirect_off_the_list_of_allowed_hosts_is_refused():
    async with (
        HttpServer(redirecting("https://elsewhere.example/")) as server,
        Egress(exceptions=[server.place]) as egress,
    ):
        error = await failure(egress.door("t", ["127.0.0.1"], no_secrets), server.url)
    assert "redirects to where no call may go" in error.message


async def test_endless_redirects_end():
    async with HttpServer(redirecting("/again")) as server, Egress(exceptions=[server.place]) as egress:
        error = await failure(egress.door("t", None, no_secrets), server.url)
        assert "more than 5 times" in error.message
        assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (302, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (307, "POST", "POST", '{"a":1}'),
        (308, "PUT", "PUT", '{"a":1}'),
    ],
)
async def test_a_redirect_changes_the_method_as_browsers_do(status: int, method: str, then: str, body: str):
    async with HttpServer(redirecting("/end", status)) as server, Egress(exceptions=[server.place]) as egress:
        reply = await egress.door("t", None, no_secrets).request(method, server.url, json={"a": 1})
    assert server.asked[-1].method == then
    assert server.asked[-1].body.decode() == body
    assert reply.url.endswith("/end")


async def test_a_redirect_may_be_left_to_the_caller():
    async with HttpServer(redirecting("/end")) as server, Egress(exceptions=[server.place]) as egress:
        reply = await egress.door("t", None, no_secrets).request("GET", server.url, follow_redirects=False)
    assert (reply.status, reply.headers["location"]) == (302, "/end")


async def test_secrets_stay_with_the_origin_they_were_meant_for():
    async with (
        HttpServer(redirecting("/end")) as other,
        HttpServer(redirecting(f"{other.url}/end")) as server,
        Egress(exceptions=[server.place, other.place]) as egress,
    ):
        headers = {"X-Token": SecretRef("token"), "Authorization": "Bearer literal", "X-Plain": "stays"}
        await egress.door("t", None, secrets(token="s3cret-value")).request("GET", server.url, headers=headers)
        assert server.asked[0].headers["x-token"] == "s3cret-value"
        arrived = other.asked[0].headers
        assert "x-token" not in arrived
        assert "authorization" not in arrived
        assert arrived["x-plain"] == "stays"
    async with HttpServer(redirecting("/end")) as server, Egress(exceptions=[server.place]) as egress:
        await egress.door("t", None, secrets(token="s3cret-value")).request("GET", server.url, headers=headers)
        assert server.asked[1].headers["x-token"] == "s3cret-value", "the same origin keeps them"


def test_the_prepared_certificates_are_for_one_name(tmp_path: Path):
    served, trusted = certificate(tmp_path, "x.test")
    assert served.verify_mode == ssl.CERT_NONE
    assert trusted.verify_mode == ssl.CERT_REQUIRED
