"""Post to Slack, or to what takes messages like it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.base import (
    Context,
    Effect,
    Example,
    Family,
    LongText,
    Node,
    NodeError,
    Out,
    PortInfo,
    Secret,
    SecretRef,
    Simulated,
)
from nodes.calls import failure
from nodes.compiling import Writer, atom
from nodes.shape import TEXT, Shape
from nodes.texts import filled, quoted

_LONGEST = 40_000


class Posted(Out):
    """The message that was posted."""

    text: Annotated[str, PortInfo(help="The text as it was posted.")]


class SlackPost(Node):
    """Posts a message to a Slack channel.

    Make an “incoming webhook” in Slack and keep its address as a secret. Mattermost, Rocket.Chat and Discord (with `/slack`
    at the end of its address) take the same messages.
    """

    family, title, icon, effect = Family.ACTION, "Post to Slack", "tag", Effect.E4
    words = ("slack", "chat", "message", "channel", "notify", "mattermost", "discord", "team", "post")
    examples = (
        Example(
            "Tell the team",
            {"address": "slack_support", "channel": "#support", "text": "New order of {{ name }}: {{ total }} €"},
            {"value": {"name": "Ada", "total": 1200}},
            {"text": "New order of Ada: 1200 €"},
            given={"http": {"[slack_support]": "ok"}},
        ),
        Example(
            "A list in one message",
            {"address": "slack_support", "text": "{{ items | length }} are late: {{ items | join(', ') }}"},
            {"value": {"items": ["A1", "B2"]}},
            {"text": "2 are late: A1, B2"},
            given={"http": {"[slack_support]": "ok"}},
        ),
    )

    address: Secret = Field(
        min_length=1, title="Address", description="The secret that holds the address of the incoming webhook."
    )
    channel: str = Field(
        default="",
        max_length=100,
        title="Channel",
        description="Its name, for people who read this agent. Where messages arrive is decided by the address.",
        json_schema_extra={"placeholder": "#support"},
    )
    text: LongText = Field(
        min_length=1,
        title="Message",
        description="The text, with `{{ … }}` where something is filled in.",
        json_schema_extra={"placeholder": "New order of {{ name }}"},
    )

    def hosts(self) -> tuple[str, ...] | None:
        return ("",)

    async def run(self, ctx: Context, value: Any = None) -> Posted:
        text = self._text(ctx)
        reply = await ctx.http.request("POST", SecretRef(self.address), json={"text": text}, follow_redirects=False)
        if reply.status >= 400:
            raise failure(reply, "Slack", repeatable=False)
        if reply.status >= 300:
            raise NodeError(
                f"The address answered with status {reply.status}, which is not what an incoming webhook does.",
                category="configuration",
                fix="Check the secret: it must hold the whole address, beginning with https://.",
            )
        return Posted(text)

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        text = self._text(ctx)
        return Simulated(f"would post to {self.channel.strip() or 'Slack'}: “{quoted(text, 200)}”", Posted(text))

    def _text(self, ctx: Context) -> str:
        return _checked(filled(ctx, self.text))

    def as_python(self, w: Writer) -> None:
        w.let("text", w.use(_checked, w.words(self.text)))
        sent = (w.secret(self.address), atom('json={"text": text}'), atom("follow_redirects=False"))
        w.let("reply", w.world("http.request", '"POST"', *sent))
        with w.when("reply.status >= 300"):
            w.line(w.use(failure, "reply", '"Slack"'), "raise ")
        w.give("text")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"text": TEXT}

    def describe(self) -> str:
        return f"{self.channel.strip() or 'Slack'}: {quoted(self.text)}"


def _checked(text: str) -> str:
    """The message when it can be posted. Raises NodeError."""
    if not text.strip():
        raise NodeError("The message is empty.", fix="Check the fields that it is made of.")
    if len(text) > _LONGEST:
        raise NodeError(
            f"The message has {len(text):,} characters, and at most {_LONGEST:,} are possible.",
            category="limit",
            fix="Shorten it, as in `{{ body | truncate(1000) }}`.",
        )
    return text
