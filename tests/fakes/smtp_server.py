"""A small SMTP server on 127.0.0.1 for tests: keeps every message, and misbehaves on request."""

import asyncio
import base64
import ssl
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import cast


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message as it came in, with its envelope."""

    sender: str
    recipients: list[str]
    content: bytes
    secure: bool
    login: str

    @property
    def message(self) -> EmailMessage:
        return cast(EmailMessage, message_from_bytes(self.content, policy=default))


class SmtpServer:
    """`async with SmtpServer() as server`. Recipients at `nobody.example` are refused, at `busy.example` put off."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, password: str = "", silent: bool = False) -> None:
        self._tls = tls
        self._password = password
        self._silent = silent
        self._tasks: set[asyncio.Task[None]] = set()
        self.delivered: list[Delivered] = []
        self.commands: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "SmtpServer":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, recipients, login, secure = "", list[str](), "", False

        async def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()

        try:
            if self._silent:
                await asyncio.Event().wait()
            await say("220 test ready")
            while raw := await reader.readline():
                line = raw.decode().strip()
                self.commands.append(line)
                verb, _, rest = line.partition(" ")
                match verb.upper():
                    case "EHLO":
                        offers = ["250-AUTH PLAIN"] if self._password else []
                        offers += ["250-STARTTLS"] if self._tls and not secure else []
                        await say("250-test", *offers, "250 8BITMIME")
                    case "STARTTLS":
                        await say("220 go on")
                        await writer.start_tls(cast(ssl.SSLContext, self._tls))
                        secure = True
                    case "AUTH":
                        _, user, given = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
                        login = user if given == self._password else ""
                        await say("235 welcome" if login else f"535 5.7.8 {user} with {given} is not known")
                    case "MAIL":
                        sender, recipients = rest.partition("<")[2].partition(">")[0], []
                        await say("550 5.7.1 not from you" if "banned" in sender else "250 ok")
                    case "RCPT":
                        address = rest.partition("<")[2].partition(">")[0]
                        if address.endswith("nobody.example"):
                            await say("550 5.1.1 no such person")
                        elif address.endswith("busy.example"):
                            await say("450 4.2.1 come back later")
                        else:
                            recipients.append(address)
                            await say("250 ok")
                    case "DATA":
                        await say("354 go on")
                        content = (await reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
                        if b"#hang-up" in content:
                            return
                        self.delivered.append(Delivered(sender, recipients, content, secure, login))
                        await say("250 taken")
                    case "QUIT":
                        await say("221 bye")
                        return
                    case _:
                        await say("250 ok")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
