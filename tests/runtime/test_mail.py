"""Sending e-mail through a real SMTP conversation."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import NodeError
from runtime.mail import Mailer, _compose, _Place
from tests.fakes.certificates import certificate
from tests.fakes.smtp_server import SmtpServer


async def failure(mailer: Mailer, *to: str, **more) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await mailer.send(**{"to": to or ["ada@example.com"], "subject": "Hi", "text": "Hello", **more})
    return caught.value


async def test_a_message_arrives_as_it_was_written():
    async with SmtpServer() as server:
        mailer = Mailer(f"{server.url}?from=Agent Factory <agents@factory.example>")
        number = await mailer.send(
            to=["Ada Lovelace <ada@example.com>", "bob@münchen.example"],
            subject="Grüße, “Ada” ✓",
            text="Line one\n.\nLine – three",
            html="<p>Line <b>one</b></p>",
        )
        sent = server.delivered[0]
    assert sent.sender == "agents@factory.example"
    assert sent.recipients == ["ada@example.com", "bob@xn--mnchen-3ya.example"]
    message = sent.message
    assert message["Message-ID"] == number
    assert number.endswith("@factory.example>")
    assert message["Subject"] == "Grüße, “Ada” ✓"
    assert message["From"] == "Agent Factory <agents@factory.example>"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None and plain.get_content().splitlines() == ["Line one", ".", "Line – three"]
    assert html is not None and html.get_content().splitlines() == ["<p>Line <b>one</b></p>"]


async def test_a_sender_may_be_chosen():
    async with SmtpServer() as server:
        await Mailer(server.url).send(to=["ada@example.com"], subject="", text="", sender="sales@example.com")
        assert server.delivered[0].sender == "sales@example.com"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@exa mple.com",
        "ada@example.com, bob@example.com",
        "ada@example.com\r\nRCPT TO:<eve@example.com>",
        "ada@example.com\nBcc: eve@example.com",
        "a\u2028b@example.com",
        "<ada@example.com>\r\nDATA",
        "Ada\r\nBcc: eve@example.com <ada@example.com>",
        "ada@example.com>\r\nMAIL FROM:<x@y.z",
        "ada@-example.com",
        "ada@@example.com",
        "ädä@example.com",
        "a" * 300 + "@example.com",
    ],
)
async def test_what_is_not_one_address_is_refused_before_anything_is_sent(address: str):
    async with SmtpServer() as server:
        error = await failure(Mailer(server.url), address)
        assert server.commands == []
    assert "not an e-mail address" in error.message
    assert "\n" not in error.message
    await failure(Mailer(server.url), sender=address or " ")


async def test_no_header_can_be_slipped_in():
    async with SmtpServer() as server:
        await Mailer(server.url).send(
            to=["ada@example.com"],
            subject="Hi\r\nBcc: eve@example.com\r\n\r\nOther body",
            text="Hello\r\n.\r\nMAIL FROM:<eve@example.com>",
        )
        assert [delivered.recipients for delivered in server.delivered] == [["ada@example.com"]]
        message = server.delivered[0].message
        assert not [command for command in server.commands if "eve" in command]
    assert message["Bcc"] is None
    assert message["Subject"] == "Hi Bcc: eve@example.com Other body"


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_any_text_makes_a_message_of_known_headers_or_a_typed_error(name: str, subject: str, text: str):
    try:
        message = _compose(_Place("smtp://mail.example.com"), [f"{name} <a@example.com>"], subject, text, text, None)
    except NodeError:
        return
    head, _, _ = message.as_bytes().partition(b"\r\n\r\n")
    known = {"from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type"}
    known.add("content-transfer-encoding")
    lines = [line for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    assert {line.partition(b":")[0].decode().lower() for line in lines} <= known


async def test_too_many_or_no_recipients_are_refused():
    mailer = Mailer("smtp://127.0.0.1:9")
    assert "no recipient" in (await failure(mailer, to=[])).message
    assert (await failure(mailer, to=["a@example.com"] * 51)).category == "limit"
    assert (await failure(mailer, text="x" * 10_485_761)).category == "limit"


async def test_without_a_server_it_says_how_to_set_one_up():
    error = await failure(Mailer())
    assert error.category == "configuration"
    assert error.fix and "FACTORY_SMTP_URL" in error.fix
    assert not Mailer().configured


@pytest.mark.parametrize("url", ["http://x", "smtp://", "mail.example.com:25", "smtp://x:99999", "smtp://x:abc"])
def test_an_address_of_a_server_that_cannot_be_read_is_refused_at_the_start(url: str):
    with pytest.raises(NodeError, match="cannot be read"):
        Mailer(url)


async def test_tls_is_used_when_offered_and_the_password_goes_only_there(tmp_path: Path):
    served, trusted = certificate(tmp_path, "localhost")
    async with SmtpServer(tls=served, password="pa:ss/word") as server:
        url = f"mailto://agents%40example.com:pa%3Ass%2Fword@localhost:{server.port}"
        await Mailer(url, tls=trusted).send(to=["ada@example.com"], subject="Hi", text="Hello")
        sent = server.delivered[0]
        assert (sent.secure, sent.login, sent.sender) == (True, "agents@example.com", "agents@example.com")
        untrusted = await failure(Mailer(url))
    assert untrusted.category == "configuration"
    assert "secured" in untrusted.message
    async with SmtpServer(password="secret-pw") as server:
        error = await failure(Mailer(f"smtp://me:secret-pw@127.0.0.1:{server.port}"))
        assert "no secure connection" in error.message
        assert not [command for command in server.commands if command.startswith("AUTH")]
        await Mailer(f"smtp://me:secret-pw@127.0.0.1:{server.port}?tls=none").send(
            to=["ada@example.com"], subject="", text=""
        )


async def test_a_wrong_password_is_a_matter_of_credentials_and_is_not_shown():
    async with SmtpServer(password="right") as server:
        error = await failure(Mailer(f"smtp://me:wr0ng-secret@127.0.0.1:{server.port}?tls=none"))
    assert error.category == "credential"
    assert "wr0ng" not in f"{error.message} {error.fix}"


async def test_a_password_that_cannot_be_written_is_told():
    async with SmtpServer(password="right") as server:
        error = await failure(Mailer(f"smtp://me:w%C3%B6rd@127.0.0.1:{server.port}?tls=none"))
    assert error.category == "credential"


@pytest.mark.parametrize(
    ("to", "said", "retry"),
    [("x@nobody.example", "no such person", False), ("x@busy.example", "come back later", True)],
)
async def test_a_refused_recipient_is_told_with_the_servers_words(to: str, said: str, retry: bool):
    async with SmtpServer() as server:
        error = await failure(Mailer(server.url), to)
    assert said in error.message
    assert to in error.message
    assert (error.category, error.retry) == ("remote", retry)


async def test_some_refused_recipients_are_named():
    async with SmtpServer() as server:
        error = await failure(Mailer(server.url), "ada@example.com", "x@nobody.example")
        assert server.delivered[0].recipients == ["ada@example.com"]
    assert error.details == {"refused": ["x@nobody.example"]}
    assert not error.retry, "the others would get it twice"


async def test_a_refused_sender_is_told():
    async with SmtpServer() as server:
        assert "not from you" in (await failure(Mailer(server.url), sender="banned@example.com")).message


async def test_a_server_that_hangs_up_after_the_text_may_have_sent_it():
    async with SmtpServer() as server:
        error = await failure(Mailer(server.url), text="#hang-up")
    assert (error.category, error.retry) == ("remote", False)


async def test_nobody_there_or_nobody_speaking_may_be_tried_again():
    async with SmtpServer(silent=True) as server:
        silent = await failure(Mailer(server.url, timeout=0.2))
    gone = await failure(Mailer(server.url))
    assert [(error.category, error.retry) for error in (silent, gone)] == [("timeout", True), ("remote", True)]
