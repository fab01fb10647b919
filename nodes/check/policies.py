"""What steps and the agent do when something fails: settings that contradict each other, help nothing, or lead nowhere."""

from typing import Any, Final

from nodes.base import Effect, Loop, Node, PortType
from nodes.blueprint import Policy
from nodes.categories import HOPELESS, Category
from nodes.check.findings import Findings, asked, listed
from nodes.check.reading import Reading

_KINDS: Final[dict[PortType, tuple[type, ...]]] = {
    PortType.TEXT: (str,),
    PortType.MOMENT: (str,),
    PortType.NUMBER: (int, float),
    PortType.YES_NO: (bool,),
    PortType.LIST: (list,),
    PortType.RECORD: (dict,),
}
_UNCLEAR: Final = (Category.TIMEOUT, Category.REMOTE)
"""After these nobody knows whether the other side did what it was asked."""


def read_policies(reading: Reading, findings: Findings) -> None:
    """Everything about failures."""
    for id_, node in reading.working():
        policy = reading.graph.placed[id_].policy
        if policy.retries:
            _read_repeats(reading, findings, id_, node, policy)
        elif policy.retry_on:
            findings.add(
                "hint",
                "policy.never_tried",
                f"{reading.name(id_)} says after which failures it is tried again, but it is never tried again.",
                "Say how often to try again, or choose no failures.",
                node=id_,
                field="policy",
                repair=[_set(id_, retries=2)],
            )
        _read_value(reading, findings, id_, policy)
    _read_error_agent(reading, findings)


def _read_repeats(reading: Reading, findings: Findings, id_: str, node: Node, policy: Policy) -> None:
    effect = asked(node.effect_here, Effect.E4)
    if policy.first_delay > policy.max_delay:
        findings.add(
            "warning",
            "policy.pauses",
            f"{reading.name(id_)}: the first pause ({policy.first_delay:g} s) is longer than the longest one ({policy.max_delay:g} s), so it never counts.",
            "Make the longest pause at least as long as the first.",
            node=id_,
            field="policy",
            repair=[_set(id_, max_delay=policy.first_delay)],
        )
    if effect is Effect.E0 and not isinstance(node, Loop) and type(node).resume is Node.resume:
        findings.add(
            "hint",
            "policy.same_again",
            f"{reading.name(id_)} only calculates: with the same data it fails in the same way, however often it is tried.",
            "Do not try again; correct the data before it, or go on with a value.",
            node=id_,
            field="policy",
            repair=[_set(id_, retries=0)],
        )
    elif policy.retry_on and set(policy.retry_on) <= HOPELESS:
        words = listed(Category.read(each).word for each in policy.retry_on)
        findings.add(
            "warning",
            "policy.hopeless",
            f"{reading.name(id_)} is tried again only after failures that trying again cannot mend: {words}.",
            "Choose failures that pass, such as “Other side” or “Too many calls”.",
            node=id_,
            field="policy",
            repair=[_set(id_, retry_on=[])],
        )
    elif effect >= Effect.E4 and not node.keyed and any(each in policy.retry_on for each in _UNCLEAR):
        findings.add(
            "hint",
            "policy.twice",
            f"{reading.name(id_)} may happen twice: when no answer came, nobody knows whether it was done, and it is tried again.",
            "That is fine if twice does no harm. If it does, do not try again after these failures.",
            node=id_,
            field="policy",
        )


def _read_value(reading: Reading, findings: Findings, id_: str, policy: Policy) -> None:
    value = policy.on_error_value
    if value is None:
        return
    if policy.on_error != "continue":
        findings.add(
            "hint",
            "policy.value_unused",
            f"{reading.name(id_)} has a value to go on with after a failure, but it does not go on then.",
            "Choose “Go on with a value”, or clear the value.",
            node=id_,
            field="policy",
            repair=[_set(id_, on_error="continue")],
        )
        return
    ports = list(reading.graph.outputs[id_].values())
    if not ports:
        findings.add(
            "hint",
            "policy.value_unused",
            f"{reading.name(id_)} gives nothing to the steps behind it, so the value after a failure goes nowhere.",
            "Clear the value.",
            node=id_,
            field="policy",
            repair=[_set(id_, on_error_value=None)],
        )
    elif not _fits(value, ports[0].type):
        findings.add(
            "warning",
            "policy.value_kind",
            f"{reading.name(id_)} gives a {ports[0].type.value}, but after a failure it would give {_kind(value)}: the steps behind it may not understand that.",
            f"Give a {ports[0].type.value}, or leave the value empty.",
            node=id_,
            field="policy",
        )


def _fits(value: Any, type_: PortType) -> bool:
    kinds = _KINDS.get(type_)
    if kinds is None:
        return True
    return isinstance(value, kinds) and (type_ is not PortType.NUMBER or not isinstance(value, bool))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "yes or no"
    for type_, word in ((str, "a text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, type_):
            return word
    return "a record"


def _read_error_agent(reading: Reading, findings: Findings) -> None:
    """The agent that is started when a run of this one has failed."""
    chosen, around = reading.blueprint.on_failure, reading.around
    if not chosen or around is None:
        return
    if chosen == around.own_id:
        severity, code = "error", "error_agent.itself"
        sentence = "If a run fails, this agent is to start itself: it would fail in the same way."
        fix = "Choose another agent that tells somebody or cleans up."
    elif chosen not in around.blueprints:
        severity, code = "error", "error_agent.missing"
        sentence = "The agent that is to start when a run fails does not exist (any more)."
        fix = "Choose another one under Agent settings."
    elif around.deployed is not None and chosen not in around.deployed:
        severity, code = "warning", "error_agent.not_deployed"
        sentence = "The agent that is to start when a run fails is not deployed: its draft would be used, as it stands at that moment."
        fix = "Deploy that agent too."
    else:
        return
    repair = [] if severity == "warning" else [{"op": "set_blueprint", "patch": {"on_failure": ""}}]
    findings.add(
        "warning" if severity == "warning" else "error", code, sentence, fix, field="on_failure", repair=repair
    )


def _set(id_: str, **policy: Any) -> dict[str, Any]:
    return {"op": "set", "id": id_, "patch": {"policy": policy}}
