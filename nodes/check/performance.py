"""How long a run will take and what it will cost, as far as that can be told beforehand."""

from typing import Final

from nodes.base import Effect, Loop, Node
from nodes.blueprint import Placed
from nodes.check.findings import Findings, asked
from nodes.check.reading import Reading
from nodes.formula import FormulaError, compile_text
from nodes.listen import Form, Schedule, Webhook

ITEMS: Final = 10
"""How many items a loop is taken to have when nothing is known of its list."""
_SLOW: Final = 60.0
_LONGEST_TRY: Final = 3600.0
_PARALLEL: Final = 10
_LONG_TEXT: Final = 20_000
_CALLER_WAITS: Final = 30.0


def read_performance(reading: Reading, findings: Findings) -> None:
    """All of the tier."""
    seconds, way = forecast(reading)
    _read_length(reading, findings, seconds, way)
    _read_loops(reading, findings)
    _read_retries(reading, findings)
    _read_texts(reading, findings)


def seconds_of(node: Node) -> float:
    """About how long one execution takes."""
    found = asked(node.forecast_seconds, 0.0)
    return max(0.0, float(found)) if isinstance(found, int | float) else 0.0


def forecast(reading: Reading) -> tuple[float, list[str]]:
    """About how many seconds a run takes, and its slowest way; loops count as ten items."""
    routes, graph = reading.routes, reading.graph
    if not routes.acyclic:
        return 0.0, []
    # The bodies first, innermost before the loops around them.
    bodies = dict.fromkeys(routes.loops, 0.0)
    for loop in sorted(routes.loops, key=lambda loop: -len(graph.loops_around(loop))):
        bodies[loop], _ = _longest(reading, loop, bodies)
    return _longest(reading, None, bodies)


def _longest(reading: Reading, scope: str | None, bodies: dict[str, float]) -> tuple[float, list[str]]:
    routes, graph = reading.routes, reading.graph
    ends: dict[str, float] = {}
    came: dict[str, str] = {}
    last, longest = "", 0.0
    for id_ in routes.order:
        if graph.scope.get(id_) != scope:
            continue
        node, placed = graph.nodes.get(id_), graph.placed[id_]
        own = 0.0 if node is None or placed.disabled else seconds_of(node)
        if isinstance(node, Loop) and not placed.disabled:
            own += bodies[id_] * ITEMS / min(max(node.at_once(), 1), ITEMS)
        before = [edge.source for edge in routes.into[id_] if edge.source in ends]
        slowest = max(before, key=ends.__getitem__, default="")
        if slowest:
            came[id_] = slowest
        ends[id_] = own + (ends[slowest] if slowest else 0.0)
        if ends[id_] > longest:
            last, longest = id_, ends[id_]
    way = [last] if last else []
    while way and way[-1] in came:
        way.append(came[way[-1]])
    return longest, way[::-1]


def _read_length(reading: Reading, findings: Findings, seconds: float, way: list[str]) -> None:
    if seconds > _SLOW:
        slowest = max(way, key=lambda id_: _weight(reading, id_))
        findings.add(
            "hint",
            "run.slow",
            f"A run takes about {in_words(seconds)}, most of it in {reading.name(slowest)}.",
            "That is fine for work in the background. To be faster, do less there, or more at once.",
            node=slowest,
            path=way,
        )
    if seconds > _CALLER_WAITS:
        for trigger, node in reading.working():
            listens = asked(node.listens, None)
            if isinstance(listens, Webhook | Form) and listens.respond == "end":
                findings.add(
                    "hint",
                    "run.caller_waits",
                    f"The caller of {reading.name(trigger)} waits about {in_words(seconds)} for the answer; many give up before.",
                    "Answer at once, and send the result when it is there.",
                    node=trigger,
                    repair=[{"op": "set", "id": trigger, "patch": {"settings": {"respond": "now"}}}],
                )
    for trigger, node in reading.working():
        listens = asked(node.listens, None)
        if isinstance(listens, Schedule) and 0 < listens.every < seconds:
            findings.add(
                "hint",
                "run.overlaps",
                f"{reading.name(trigger)} starts a run every {in_words(listens.every)}, and one takes about {in_words(seconds)}: they pile up.",
                "Start less often, or do less in one run.",
                node=trigger,
            )


def _weight(reading: Reading, id_: str) -> float:
    node = reading.graph.nodes.get(id_)
    if node is None:
        return 0.0
    inside = sum(
        seconds_of(reading.graph.nodes[step])
        for step in reading.routes.bodies.get(id_, ())
        if step in reading.graph.nodes
    )
    return seconds_of(node) + inside * ITEMS


def _read_loops(reading: Reading, findings: Findings) -> None:
    routes, graph = reading.routes, reading.graph
    for loop in routes.loops:
        node = graph.nodes[loop]
        if graph.placed[loop].disabled or not isinstance(node, Loop):
            continue
        body = [id_ for id_ in routes.bodies[loop] if id_ in graph.nodes and not graph.placed[id_].disabled]
        outside = [id_ for id_ in body if _reaches_out(graph.nodes[id_])]
        if not outside:
            continue
        slow = max(outside, key=lambda id_: seconds_of(graph.nodes[id_]))
        one = sum(seconds_of(graph.nodes[id_]) for id_ in body)
        most = getattr(node, "most", None)
        chosen = node.rounds or "most" in graph.placed[loop].settings
        bound = most if isinstance(most, int) and chosen else None
        many, at_once = bound or 100, max(asked(node.at_once, 1), 1)
        costly = seconds_of(graph.nodes[slow]) >= 2
        # However many are worked on together, a step that may start only so often sets the pace.
        pace = max((_pause_between(graph.placed[id_]) for id_ in body), default=0.0)
        all_of_it = max(one * many / min(at_once, many), pace * many)
        takes = in_words(all_of_it)
        if node.rounds:
            if all_of_it > _SLOW:
                findings.add(
                    "hint",
                    "loop.slow",
                    f"{reading.name(loop)} does {reading.name(slow)} in every round: {many:,} rounds take about {takes}.",
                    "That is the longest it can take. Lower “At most” if it should give up sooner.",
                    node=loop,
                    field="most",
                    path=(loop, slow),
                )
            continue
        if bound is None:
            findings.add(
                "hint",
                "loop.no_bound",
                f"{reading.name(loop)} does {reading.name(slow)} for every item, however many there are: "
                f"100 items take about {takes}" + (" and 100 answers of a model." if costly else "."),
                "Set “At most” to as many items as you expect, or filter the list before.",
                node=loop,
                field="most" if most is not None else "",
                path=(loop, slow),
            )
        elif all_of_it > _SLOW:
            findings.add(
                "hint",
                "loop.slow",
                f"{reading.name(loop)} does {reading.name(slow)} for every item: {many:,} items take about {takes}.",
                "Work on more items at once, or filter the list before.",
                node=loop,
                field="parallel",
                path=(loop, slow),
            )
        if at_once > _PARALLEL:
            findings.add(
                "hint",
                "loop.crowd",
                f"{reading.name(loop)} does {reading.name(slow)} for {at_once} items at once; most systems refuse so many calls.",
                f"Work on at most {_PARALLEL} at once.",
                node=loop,
                field="parallel",
                path=(loop, slow),
                repair=[{"op": "set", "id": loop, "patch": {"settings": {"parallel": _PARALLEL}}}],
            )


def _pause_between(placed: Placed) -> float:
    """Seconds that lie between two starts of a step, if it may start only so often."""
    return placed.policy.per / placed.policy.at_most if placed.policy.at_most else 0.0


def _reaches_out(node: Node) -> bool:
    """Whether it asks or tells something outside, and so takes time and maybe money."""
    return asked(node.effect_here, Effect.E4) >= Effect.E1 and seconds_of(node) >= 0.25


def _read_retries(reading: Reading, findings: Findings) -> None:
    for id_, node in reading.working():
        policy = reading.graph.placed[id_].policy
        if not policy.retries or asked(node.effect_here, Effect.E4) is Effect.E0:
            continue
        pauses = sum(min(policy.max_delay, policy.first_delay * 2**number) for number in range(policy.retries))
        worst = policy.timeout * (policy.retries + 1) + pauses
        if worst > _LONGEST_TRY:
            findings.add(
                "hint",
                "step.tries_long",
                f"If {reading.name(id_)} keeps failing, the run gives up only after {in_words(worst)}.",
                "Try again less often, or shorten the time limit or the pauses.",
                node=id_,
                field="policy",
            )


def _read_texts(reading: Reading, findings: Findings) -> None:
    for id_, _ in reading.working():
        for text in reading.texts[id_]:
            if text.format != "template" or len(text.text) <= _LONG_TEXT:
                continue
            try:
                plain = compile_text(text.text).is_plain
            except FormulaError:
                continue
            findings.add(
                "hint",
                "text.long",
                f"{reading.name(id_)}, {text.label}: the text has {len(text.text):,} characters, which are sent or copied in every run.",
                "Shorten it." if not plain else "Shorten it, or keep it in a file that the agent reads.",
                node=id_,
                field=text.field,
            )


def in_words(seconds: float) -> str:
    """A length of time as people say it."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size * 1.5 or (unit != "minute" and seconds >= size):
            count = round(seconds / size)
            return f"{count} {unit}s" if count != 1 else f"1 {unit}"
    count = max(1, round(seconds))
    return f"{count} seconds" if count != 1 else "1 second"
