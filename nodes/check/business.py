"""Whether a blueprint does what somebody who draws it so most likely wants."""

from typing import Final

from nodes.agents import AgentNode
from nodes.base import Family
from nodes.check.findings import Findings, asked, listed
from nodes.check.formulas import read_formulas
from nodes.check.reading import Reading
from nodes.check.routes import ways
from nodes.listen import Chat, Form, Schedule, Webhook

_RESPOND: Final = "action.respond"
_MODEL: Final = "action.ask_model"
_MAIL: Final = "action.send_email"


def read_business(reading: Reading, findings: Findings) -> None:
    """All of the tier, formulas included."""
    _read_starts(reading, findings)
    _read_branches(reading, findings)
    _read_answers(reading, findings)
    _read_settings(reading, findings)
    read_formulas(reading, findings)


def _read_starts(reading: Reading, findings: Findings) -> None:
    for id_ in reading.routes.triggers:
        if not reading.routes.out[id_] and not reading.graph.placed[id_].disabled:
            findings.add(
                "warning",
                "trigger.alone",
                f"{reading.name(id_)} starts a run in which nothing happens: no step is connected to it.",
                "Connect it with the first step, or delete it.",
                node=id_,
            )


def _read_branches(reading: Reading, findings: Findings) -> None:
    """Ways of a decision that lead nowhere, and errors that nobody hears."""
    routes, graph = reading.routes, reading.graph
    for id_, node in reading.working():
        if id_ in graph.agents.tool_of:
            continue  # whatever way it takes, its agent is told
        used = {edge.source_port for edge in routes.out[id_]}
        used |= {
            edge.source_port for loop in routes.gives_to[id_] for edge in routes.results[loop] if edge.source == id_
        }
        groups = ways(node)
        idle = [group for group in groups if not used & set(group)]
        if groups and routes.into[id_] and len(idle) == len(groups):
            findings.add(
                "warning",
                "decision.unused",
                f"{reading.name(id_)} decides, but nothing happens either way: none of its ways is connected.",
                "Connect its ways with what should happen next.",
                node=id_,
            )
        elif idle and len(idle) < len(groups):
            ports = graph.outputs[id_]
            said = listed((ports[group[0]].label for group in idle if group[0] in ports), "or")
            findings.add(
                "hint",
                "branch.unused",
                f"When {reading.name(id_)} says {said}, nothing more happens: what arrived is dropped.",
                "Connect that way too, if something should happen then.",
                node=id_,
            )
        placed = graph.placed[id_]
        if placed.policy.on_error == "port" and not any(edge.source_port == "error" for edge in routes.out[id_]):
            findings.add(
                "warning",
                "error.dropped",
                f"Errors of {reading.name(id_)} leave by its “error” port, and nothing is connected there: nobody hears of them.",
                "Connect the “error” port, or let an error stop the run.",
                node=id_,
                repair=[{"op": "set", "id": id_, "patch": {"policy": {"on_error": "stop"}}}],
            )


def _read_answers(reading: Reading, findings: Findings) -> None:
    routes, graph = reading.routes, reading.graph
    responds = {id_ for id_, _ in reading.working() if graph.placed[id_].type == _RESPOND}
    for id_ in routes.triggers:
        node = graph.nodes.get(id_)
        if node is None or graph.placed[id_].disabled:
            continue
        listens = asked(node.listens, None)
        behind = routes.behind([id_])
        answered = responds & behind
        if isinstance(listens, Webhook | Form) and listens.respond == "end" and not answered and len(behind) > 1:
            findings.add(
                "hint",
                "respond.missing",
                f"{reading.name(id_)} answers when the run has ended, and no “Respond” says what: it answers with what the last step gives.",
                "Add “Respond” where the answer is known, or answer at once.",
                node=id_,
            )
        elif isinstance(listens, Webhook | Form) and listens.respond == "now" and answered:
            for respond in sorted(answered, key=routes.place.__getitem__):
                if _somebody_waits(reading, respond):
                    continue
                findings.add(
                    "warning",
                    "respond.unheard",
                    f"Nobody hears {reading.name(respond)}: {reading.name(id_)} has answered before, as soon as the run began.",
                    f"Set “Answer” of {reading.name(id_)} to “end”, or remove {reading.name(respond)}.",
                    node=respond,
                    path=(id_, respond),
                    repair=[{"op": "set", "id": id_, "patch": {"settings": {"respond": "end"}}}],
                )
    for respond in sorted(responds, key=routes.place.__getitem__):
        starts = [graph.nodes.get(id_) for id_ in routes.triggers if respond in routes.behind([id_])]
        if starts and all(node is not None and isinstance(asked(node.listens, None), Schedule) for node in starts):
            findings.add(
                "warning",
                "respond.nobody",
                f"Nobody waits for {reading.name(respond)}: a schedule starts this agent.",
                "Send the result by e-mail or to Slack, or remove this step.",
                node=respond,
            )


def _somebody_waits(reading: Reading, respond: str) -> bool:
    for id_ in reading.routes.triggers:
        node = reading.graph.nodes.get(id_)
        listens = asked(node.listens, None) if node is not None else None
        waits = isinstance(listens, Chat) or (isinstance(listens, Webhook | Form) and listens.respond == "end")
        if waits and respond in reading.routes.behind([id_]):
            return True
    return False


def _read_settings(reading: Reading, findings: Findings) -> None:
    """What the installation must have for a step to work."""
    around = reading.around
    if around is None:
        return
    for id_, node in reading.working():
        type_ = reading.graph.placed[id_].type
        if (
            (type_ == _MODEL or isinstance(node, AgentNode))
            and around.model_configured is False
            and node.family is Family.ACTION
        ):
            findings.add(
                "warning",
                "model.missing",
                f"{reading.name(id_)} needs a language model, and none is set up; the sandbox gives a sample answer.",
                "Choose a model under Settings → Model.",
                node=id_,
            )
        elif type_ == _MAIL and around.mail_configured is False:
            findings.add(
                "warning",
                "mail.missing",
                f"{reading.name(id_)} needs a mail server, and none is set up.",
                "Ask whoever runs this installation to set FACTORY_SMTP_URL.",
                node=id_,
            )
        elif around.lacks_node and asked(node.worker_size, "") == "node":
            findings.add(
                "warning",
                "node.missing",
                f"{reading.name(id_)} is written in JavaScript, and there is no Node.js here that could run it.",
                "Write it in Python, or ask whoever runs this installation to install Node.js.",
                node=id_,
                field="language",
            )
