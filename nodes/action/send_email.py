"""Send e-mail."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.base import Context, Effect, Example, Family, LongText, Node, NodeError, Out, PortInfo, Simulated, Text
from nodes.compiling import Writer, led
from nodes.shape import TEXT, Shape, list_of
from nodes.texts import as_text, filled, quoted

_MOST = 50


class Sent(Out):
    """The message that was sent."""

    id: Annotated[str, PortInfo(help="The number that the message has in mail programs.")]
    to: Annotated[list[str], PortInfo(help="Who it went to.")]


class SendEmail(Node):
    """Sends an e-mail through the mail server of this installation.

    Several recipients are separated by commas and see each other. With HTML, the plain text is for mail programs that
    show none.
    """

    family, title, icon, effect = Family.ACTION, "Send e-mail", "mail", Effect.E4
    words = ("mail", "email", "notify", "message", "smtp", "letter", "inform")
    examples = (
        Example(
            "Thank a customer",
            {
                "to": "{{ email }}",
                "subject": "Your order {{ number }}",
                "body": "Dear {{ name }},\nthank you for your order.",
            },
            {"value": {"email": "ada@example.com", "name": "Ada", "number": 7}},
            {"id": "<1@mail.test>", "to": ["ada@example.com"]},
        ),
        Example(
            "To several people",
            {
                "to": "ann@example.com, {{ boss }}",
                "subject": "Report",
                "body": "See below.",
                "html": "<p>See below.</p>",
            },
            {"value": {"boss": "bob@example.com"}},
            {"id": "<1@mail.test>", "to": ["ann@example.com", "bob@example.com"]},
        ),
    )

    to: Text = Field(
        min_length=1,
        title="To",
        description="Who gets it: addresses with commas between, or a list.",
        json_schema_extra={"placeholder": "{{ email }}"},
    )
    subject: Text = Field(
        default="",
        title="Subject",
        description="One line; line breaks become spaces.",
        json_schema_extra={"placeholder": "Your order {{ number }}"},
    )
    body: LongText = Field(
        default="",
        title="Text",
        description="The message as plain text.",
        json_schema_extra={"placeholder": "Dear {{ name }}, …"},
    )
    html: LongText = Field(
        default="",
        title="HTML",
        description="The message with formatting, if wanted. Write `{{ name | escape }}` for what comes from outside.",
    )
    sender: Text = Field(
        default="",
        title="From",
        description="Empty: the address of this installation. The mail server may refuse others.",
        json_schema_extra={"placeholder": "agents@example.com"},
    )

    async def run(self, ctx: Context, value: Any = None) -> Sent:
        to = self._recipients(ctx)
        html = filled(ctx, self.html) if self.html.strip() else None
        sender = filled(ctx, self.sender).strip() or None
        subject, body = filled(ctx, self.subject), filled(ctx, self.body)
        id_ = await ctx.mail.send(to=to, subject=subject, text=body, html=html, sender=sender)
        return Sent(id=id_, to=to)

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        to = self._recipients(ctx)
        subject = quoted(filled(ctx, self.subject)) or "without a subject"
        ctx.log("The message", text=filled(ctx, self.body)[:5000])
        return Simulated(
            f"would e-mail {quoted(', '.join(to), 120)}: “{subject}”", Sent(id="<sample@sandbox.invalid>", to=to)
        )

    def _recipients(self, ctx: Context) -> list[str]:
        return _addresses(ctx.render(self.to))

    def as_python(self, w: Writer) -> None:
        w.let("to", w.use(_addresses, w.text(self.to)))
        words = [led("subject=", w.words(self.subject)), led("text=", w.words(self.body))]
        if self.html.strip():
            words.append(led("html=", w.words(self.html)))
        if self.sender.strip():
            words.append(led("sender=", w.words(self.sender)))
        w.let("number", w.world("mail.send", "to=to", *words))
        w.gives(id="number", to="to")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"id": TEXT, "to": list_of(TEXT)}

    def forecast_seconds(self) -> float:
        return 1.0

    def describe(self) -> str:
        return f"to {quoted(self.to)}"


def _addresses(given: Any) -> list[str]:
    """Who gets it, each once. Raises NodeError."""
    parts = given if isinstance(given, list) else as_text(given).replace(";", ",").split(",")
    to = list(dict.fromkeys(name for part in parts if (name := as_text(part).strip())))
    if not to:
        raise NodeError("The e-mail has no recipient.", fix="Check what “To” gives; it is empty.")
    if len(to) > _MOST:
        raise NodeError(
            f"The e-mail has {len(to)} recipients, and at most {_MOST} are possible.",
            category="limit",
            fix="Send it in a loop, or to a mailing list.",
        )
    for name in to:
        if "@" not in name:
            raise NodeError(f"“{quoted(name)}” is not an e-mail address.", fix="Write it as in ada@example.com.")
    return to
