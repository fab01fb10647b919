"""Chat: a conversation on a page that we host."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.answers import PublicPath
from nodes.base import Context, Effect, Example, Family, Label, Node, NodeError, Out, PortInfo
from nodes.compiling import Writer
from nodes.ids import new_token
from nodes.listen import Chat as Conversation
from nodes.shape import TEXT, Shape, list_of, record

_LONGEST = 100_000


class Message(Out):
    """What was said, and where."""

    text: str
    conversation: Annotated[str, PortInfo(help="The same for all messages of one conversation.")]
    history: Annotated[list[Any], PortInfo(help="What was said before, oldest first, as records with role and text.")]


class Chat(Node):
    """Starts with each message of a conversation on a page that this agent hosts.

    What “Respond” says, or else what the run ends with, is the answer in the conversation.
    """

    family, title, icon, effect = Family.TRIGGER, "Chat", "chat", Effect.E0
    words = ("conversation", "message", "assistant", "bot", "talk", "ask", "trigger")
    examples = (
        Example(
            "The first message",
            {"path": "help"},
            {"event": {"text": "Where is my order?", "conversation": "c1"}},
            {"text": "Where is my order?", "conversation": "c1", "history": []},
        ),
        Example(
            "Later in the conversation",
            {"path": "help", "welcome": "Hello!"},
            {
                "event": {
                    "text": "Number 7.",
                    "conversation": "c1",
                    "history": [
                        {"role": "user", "text": "Where is my order?"},
                        {"role": "assistant", "text": "Which number does it have?"},
                    ],
                }
            },
            {
                "text": "Number 7.",
                "conversation": "c1",
                "history": [
                    {"role": "user", "text": "Where is my order?"},
                    {"role": "assistant", "text": "Which number does it have?"},
                ],
            },
        ),
    )

    heading: str = Field(
        default="Ask us", min_length=1, max_length=200, title="Heading", description="The heading of the page."
    )
    welcome: str = Field(
        default="Hello! How can I help?",
        max_length=2_000,
        title="Welcome",
        description="What the page says before the first message.",
    )
    path: PublicPath = Field(
        default_factory=new_token,
        title="Address",
        description="The last part of the page's address. A long random one cannot be guessed.",
        json_schema_extra={"format": "path", "prefix": "/chat/"},
    )

    async def run(self, ctx: Context, event: Any) -> Message:
        text, conversation, history = _message(event)
        return Message(text=text, conversation=conversation or ctx.run_id, history=history)

    def as_python(self, w: Writer) -> None:
        w.let("text, conversation, history", w.use(_message, "event"))
        w.gives(text="text", conversation='conversation or "conversation"', history="history")

    def listens(self) -> Conversation:
        return Conversation(self.path, self.heading, self.welcome)

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def sample(self) -> dict[str, Any]:
        return {"text": "Where is my order?", "conversation": "sample", "history": []}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"history": list_of(record({"role": TEXT, "text": TEXT}))}

    def describe(self) -> str:
        return self.heading


def _message(event: Any) -> tuple[str, str, list[Any]]:
    """What was said, in which conversation, and what was said before."""
    if isinstance(event, str):
        event = {"text": event}
    text = event.get("text") if isinstance(event, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise NodeError("There is no message.", fix="Type a message before you send it.")
    if len(text) > _LONGEST:
        raise NodeError(f"A message may have {_LONGEST:,} characters, and this has {len(text):,}.", category="limit")
    history = event.get("history")
    return text, str(event.get("conversation") or ""), history if isinstance(history, list) else []
