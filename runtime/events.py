"""Facts and the bus: what happened, told once to the journal and to every screen that is watching.

A fact is a plain JSON record, because it is written, sent and folded far more often than it is made. Its kinds:

    run.accepted    {input, trigger, vars?: {name: value}, fork?: {run, start, keys: {node: run}}}
    run.responded   {status, body, headers, by}
    run.finished    {state, output, error}
    step.started    {node, iteration, attempt, input?}
    step.logged     {node, iteration, message, data}
    step.succeeded  {node, iteration, attempt, started, output: {port: value}, note?}
    step.failed     {node, iteration, attempt, started, error, handled}
    step.retrying   {node, iteration, attempt, after, error}
    step.reused     {node, iteration, output, from_run, sets?: {variable: value}}
    step.skipped    {node, iteration}                only published: the fold derives it
    step.waiting    {node, iteration, wait: until|turn|approval|consent|call|start|run|event|doubt, until, data, worked}
    step.resumed    {node, iteration, answer}
    step.held       {node, iteration, input, why: breakpoint|step}
    step.simulated  {node, iteration, sentence}
    loop.started    {node, iteration, items}         loop.again      {node, iteration, round, item?}
    agent.started   {node, iteration, messages, memory}
    agent.turn      {node, iteration, turn, text, calls: [{n, tool, name, args, raw, error?}], model, tokens_in, tokens_out, cost,
                     sample?, last?, wrong?}; a call without error is run in the iteration `<the agent's>.<n>`

Every fact also has `seq` (1, 2, 3 … within its run), `at` (epoch seconds) and `kind`.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger()

Fact = dict[str, Any]
Topic = tuple[str, ...]
Listener = Callable[[dict[str, Any]], None]


class Bus:
    """Publish and subscribe within the process, always inside one tenant. Listeners are called at once and must be quick."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[str, Topic], list[Listener]] = defaultdict(list)
        """Who listens, by tenant and topic; only topics that somebody listens to are in it."""

    def watched(self, tenant: str, topic: Topic) -> bool:
        """Whether anybody listens, so that hot paths can leave out making the message."""
        return (tenant, topic) in self.listeners

    def publish(self, tenant: str, topic: Topic, message: dict[str, Any]) -> None:
        """Tell every listener of this topic; one that fails is logged and does not disturb the others."""
        for listener in tuple(self.listeners.get((tenant, topic), ())):
            try:
                listener(message)
            except Exception:
                log.exception("a listener failed", topic=topic)

    def announce(self, topic: Topic, message: dict[str, Any]) -> None:
        """Tell the listeners of every tenant: only what belongs to none of them, such as that a page should look again."""
        for tenant, listened in tuple(self.listeners):
            if listened == topic:
                self.publish(tenant, topic, message)

    def subscribe(self, tenant: str, topic: Topic, listener: Listener) -> Callable[[], None]:
        """Listen until the returned function is called."""
        self.listeners[tenant, topic].append(listener)

        def unsubscribe() -> None:
            listeners = self.listeners.get((tenant, topic), [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self.listeners.pop((tenant, topic), None)

        return unsubscribe
