"""Lines that stand behind conditions: put together under as few `if`s as their order allows."""

from collections.abc import Sequence
from dataclasses import dataclass

from nodes.compiling.layout import STEP, WIDTH


@dataclass(slots=True)
class Chunk:
    """Lines of the wiring that stand behind one condition, and what must be set before it."""

    condition: str
    before: list[str]
    lines: list[str]


def laid_out(chunks: Sequence[Chunk], depth: int) -> list[str]:
    """Chunks as lines: what stands behind the same condition under one `if`, and its contrary under `else`."""
    lines: list[str] = []
    chain: list[Chunk] = []

    def close() -> None:
        for chunk in chain:
            lines.extend(STEP * depth + line for line in chunk.before)
        for number, chunk in enumerate(chain):
            if not chunk.condition:
                lines.extend(STEP * depth + line if line else line for line in chunk.lines)
                continue
            contrary = number and len(chain) == 2 and _contrary(chain[0].condition, chunk.condition)
            head = "else:" if contrary else f"{'elif' if number else 'if'} {chunk.condition}:"
            lines.append(STEP * depth + head)
            lines.extend(STEP * (depth + 1) + line if line else line for line in chunk.lines or ["pass"])
        chain.clear()

    for chunk in chunks:
        if chain and chunk.condition == chain[-1].condition:
            chain[-1].before += chunk.before
            chain[-1].lines += chunk.lines
        elif chain and chunk.condition and _exclusive(chain, chunk.condition):
            chain.append(Chunk(chunk.condition, list(chunk.before), list(chunk.lines)))
        else:
            close()
            chain.append(Chunk(chunk.condition, list(chunk.before), list(chunk.lines)))
    close()
    return lines


def _contrary(one: str, other: str) -> bool:
    return other in (f"not {one}",) or one in (f"not {other}",)


def _exclusive(chain: Sequence[Chunk], condition: str) -> bool:
    """Whether a condition cannot be true together with those before it."""
    if len(chain) == 1 and _contrary(chain[0].condition, condition):
        return True
    if len(chain) == 1 and condition == f"{chain[0].condition} is False":
        return True
    left, is_, _ = condition.partition(" == ")
    return bool(is_) and all(chunk.condition.startswith(f"{left} == ") for chunk in chain)


def moved_in(lines: Sequence[str]) -> list[str]:
    """The same lines, one level further in."""
    return [STEP + line if line else line for line in lines]


def kept_whole(line: str) -> str:
    """A line that a formatter would break in a way of its own, if it is that long."""
    return f"{line}  # fmt: skip" if len(line) > WIDTH - 4 * len(STEP) else line
