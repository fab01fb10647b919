"""Sends e-mail through the operator's SMTP server.

By the standard library in a thread: the notification library that the alerts use answers only yes or no, so neither the
message's number nor the reason of a refusal could be told.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.errors import HeaderParseError, MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from nodes.base import NodeError
from runtime.scrub import Scrubber

MAX_RECIPIENTS: Final = 50
MAX_SIZE: Final = 10 * 1024 * 1024

_TIMEOUT = 30.0
_AT_ONCE = 4
_SETTINGS = "Ask the operator to correct the mail server's address."


class Mailer:
    """`url` is `smtp://host:587`, `smtps://user:password@host:465` or with `?from=agents@example.com&tls=none`.

    `smtp` (or `mailto`) switches to TLS when the server offers it, and must when there is a password; `smtps` (or
    `mailtos`) speaks TLS from the start. Without a URL every message is refused with a sentence.
    """

    def __init__(self, url: str = "", *, tls: ssl.SSLContext | None = None, timeout: float = _TIMEOUT) -> None:
        self._place = _Place(url) if url.strip() else None
        self._tls = tls
        self._timeout = timeout
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @property
    def configured(self) -> bool:
        """Whether there is a server to send through."""
        return self._place is not None

    async def send(
        self, *, to: Sequence[str], subject: str, text: str, html: str | None = None, sender: str | None = None
    ) -> str:
        """Hand one message to the server and give its number. Raises NodeError."""
        if self._place is None:
            raise NodeError(
                "No mail server is set up, so no e-mail can be sent.",
                category="configuration",
                fix="Ask the operator to set FACTORY_SMTP_URL, as in smtps://user:password@mail.example.com:465.",
                code="mail.missing",
            )
        message = _compose(self._place, to, subject, text, html, sender)
        async with self._slots:
            return await asyncio.to_thread(self._deliver, self._place, message)

    def _deliver(self, place: _Place, message: EmailMessage) -> str:
        scrub = Scrubber((place.password,))
        sent = False
        try:
            with self._connect(place) as server:
                if place.user:
                    server.login(place.user, place.password)
                sent = True
                # Returns those refused; all refused is an exception.
                refused = server.send_message(message)
        except smtplib.SMTPServerDisconnected as error:
            raise _gone(place, retry=not sent, late=isinstance(error.__context__, TimeoutError)) from None
        except smtplib.SMTPException as error:
            raise _explain(error, scrub) from None
        except UnicodeError:  # the library writes user name and password in ASCII only
            raise NodeError(
                "The mail server's user name or password has letters that cannot be sent to it.",
                category="credential",
                fix="Ask the operator to use a password of plain letters, digits and signs.",
            ) from None
        except ssl.SSLError:
            raise NodeError(
                f"The connection to the mail server {place.host} could not be secured.",
                category="configuration",
                fix="Ask the operator to check its certificate, and whether the address should begin smtp or smtps.",
            ) from None
        except OSError as error:
            raise _gone(place, retry=not sent, late=isinstance(error, TimeoutError)) from None
        if refused:
            names = ", ".join(sorted(refused))
            raise NodeError(
                f"The mail server took the message, but not for {names}.",
                category="remote",
                fix="Check these addresses; the others have got it.",
                details={"refused": sorted(refused)},
            )
        return str(message["Message-ID"])

    def _connect(self, place: _Place) -> smtplib.SMTP:
        context = self._tls or ssl.create_default_context()
        if place.tls == "start":
            return smtplib.SMTP_SSL(place.host, place.port, timeout=self._timeout, context=context)
        server = smtplib.SMTP(place.host, place.port, timeout=self._timeout)
        try:
            server.ehlo_or_helo_if_needed()
            if place.tls == "offered" and server.has_extn("starttls"):
                server.starttls(context=context)
            elif place.tls == "offered" and place.password:
                raise NodeError(
                    f"The mail server {place.host} offers no secure connection, so the password is not sent.",
                    category="configuration",
                    fix="Ask the operator to use smtps://, or to add ?tls=none for a server on a trusted network.",
                )
        except BaseException:
            server.close()
            raise
        return server


class _Place:
    """Where the server is and how to speak to it, read from the URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.strip())
        secure = {"smtp": False, "mailto": False, "smtps": True, "mailtos": True}.get(parts.scheme)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if secure is None or not parts.hostname or port == -1:
            raise NodeError(
                "The address of the mail server cannot be read.",
                category="configuration",
                fix="Write it as in smtps://user:password@mail.example.com:465.",
            )
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.host = parts.hostname
        self.port = port or (465 if secure else 587)
        self.user = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        self.tls: Literal["start", "offered", "none"] = (
            "start" if secure else "none" if options.get("tls") == "none" else "offered"
        )
        self.sender = options.get("from") or (self.user if "@" in self.user else f"agents@{self.host}")


def _compose(
    place: _Place, to: Sequence[str], subject: str, text: str, html: str | None, sender: str | None
) -> EmailMessage:
    """The message. Nothing given can become a header or a command of its own: addresses are parsed, lines are one."""
    addresses = [_address(item) for item in to]
    if not addresses:
        raise NodeError("The e-mail has no recipient.", fix="Fill in at least one address.")
    if len(addresses) > MAX_RECIPIENTS:
        raise NodeError(
            f"The e-mail has {len(addresses)} recipients, and at most {MAX_RECIPIENTS} are possible.",
            category="limit",
            fix="Send it in a loop, or to a mailing list.",
        )
    if len(text) + len(html or "") > MAX_SIZE:
        raise NodeError("The e-mail is longer than 10 MB.", category="limit", fix="Send a link instead.")
    message = EmailMessage(policy=SMTP)
    origin = _address(sender or place.sender)
    try:
        message["From"] = origin
        message["To"] = addresses
        message["Subject"] = _line(subject)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=origin.domain)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_encodable(text))
        if html:
            message.add_alternative(_encodable(html), subtype="html")
    except (MessageError, ValueError) as error:
        raise NodeError("The e-mail cannot be put together.", fix="Check addresses and subject.") from error
    return message


def _address(text: str) -> Address:
    """One address, `ada@example.com` or `Ada Lovelace <ada@example.com>`."""
    name, open_, rest = text.strip().rpartition("<")
    plain = rest[:-1] if open_ and rest.endswith(">") else text.strip()
    wrong = NodeError(
        f"“{_line(text)[:100]}” is not an e-mail address.", fix="Write it as in ada@example.com, several with commas."
    )
    # Only one line of printing characters: this is what goes to the server as a command.
    if not text.strip().isprintable() or any(char in " ,;<>()\"'\\" for char in plain) or plain.count("@") != 1:
        raise wrong
    user, _, domain = plain.partition("@")
    try:
        domain = domain if domain.isascii() else domain.encode("idna").decode()
        if not user or not user.isascii() or not domain or domain.startswith((".", "-")) or len(plain) > 254:
            raise wrong
        return Address(_line(name).strip(' "'), user, domain)
    except (HeaderParseError, ValueError, IndexError):
        raise wrong from None


def _line(text: str) -> str:
    """The text as one line without control characters, short enough for a header."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())[:500]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _explain(error: smtplib.SMTPException, scrub: Scrubber) -> NodeError:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return NodeError(
            "The mail server does not accept the user name or password.", category="credential", fix=_SETTINGS
        )
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return NodeError("The mail server does not offer what is needed.", category="configuration", fix=_SETTINGS)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        said = next(iter(error.recipients.values()))[1]
        return NodeError(
            f"The mail server refused {', '.join(sorted(error.recipients))}: {_answer(said, scrub)}",
            category="remote",
            fix="Check the addresses.",
            retry=all(400 <= code < 500 for code in codes),
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return NodeError(
            f"The mail server refused the message: {_answer(error.smtp_error, scrub)}",
            category="remote",
            fix="Check sender, recipients and text.",
            # By the protocol's own rule: 4xx is for now, 5xx for good; nothing was delivered.
            retry=400 <= error.smtp_code < 500,
        )
    return NodeError("The mail server answered something unexpected.", category="remote", fix=_SETTINGS)


def _gone(place: _Place, *, retry: bool, late: bool) -> NodeError:
    """Nobody there any more. Once the message is on its way nobody knows whether it was taken."""
    said = "did not answer in time" if late else "cannot be reached" if retry else "broke off the connection"
    return NodeError(
        f"The mail server {place.host} {said}.",
        category="timeout" if late else "remote",
        fix="Try again later, or ask the operator to check the mail server's address.",
        retry=retry,
    )


def _answer(said: bytes | str, scrub: Scrubber) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return scrub.text(_line(text)[:200])
