"""Model: which language model an agent asks."""

from typing import Annotated, Any

from pydantic import Field

from nodes.agents import ModelChoice, ModelNode
from nodes.base import Context, Effect, Example, Family, ModelName, Out, Port, PortInfo, PortType, Temperature


class Chosen(Out):
    """How the model is asked; it reaches an agent by the connection, and is never run by itself."""

    model: Annotated[dict[str, Any], PortInfo(type=PortType.MODEL, help="Connect it with “model” of an agent.")]


class Model(ModelNode):
    """Says which model an agent asks, and how freely it answers.

    Connect it with “model” of an agent; several agents may share it. Without one an agent asks the model in Settings → Model.
    """

    family, title, icon, effect = Family.CONTEXT, "Model", "memory", Effect.E0
    words = ("ai", "llm", "gpt", "language model", "temperature", "tokens", "agent")
    examples = (
        Example(
            "The model in Settings, alike every time",
            {"temperature": 0},
            {},
            {"model": {"model": "", "temperature": 0, "max_tokens": 2048, "timeout": 60}},
        ),
        Example(
            "Another model of the same provider",
            {"model": "openai/gpt-4o", "max_tokens": 500},
            {},
            {"model": {"model": "openai/gpt-4o", "temperature": None, "max_tokens": 500, "timeout": 60}},
        ),
    )

    model: ModelName = ""
    temperature: Temperature = None
    max_tokens: int = Field(
        default=2048,
        ge=1,
        le=8192,
        title="Longest answer",
        description="In tokens, for each turn; a token is about three quarters of a word.",
    )
    timeout: float = Field(
        default=60, gt=0, le=600, title="Patience", description="How many seconds to wait for each answer."
    )

    def inputs(self) -> tuple[Port, ...]:
        return ()

    async def run(self, ctx: Context) -> Chosen:
        return Chosen(model=self.model_dump())

    def choice(self) -> ModelChoice:
        return ModelChoice(self.model.strip(), self.temperature, self.max_tokens, self.timeout)

    def describe(self) -> str:
        return self.model.strip()[:200]
