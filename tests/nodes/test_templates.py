"""The finished agents of the gallery: nothing to say against them, tidy to look at, and each one runs without any key."""

from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from app.assets import asset_path
from nodes.base import Effect
from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.check import Surroundings, check
from nodes.graph import read_graph
from runtime.factory import Factory, Options
from runtime.policy import Actor, Role
from runtime.views import RunView
from tests.databases import laid_out

FOLDER = asset_path("templates")
INDEX = orjson.loads((FOLDER / "index.json").read_bytes())["templates"]
NAMES = [entry["name"] for entry in INDEX]
TYPES = catalog()
ICONS = frozenset((Path(__file__).parent / "material_icons.txt").read_text().split())
WHO = Actor("team", "usr_1", "Ada", Role.DEVELOPER)
WIDTH, HEIGHT, GAP = 220, 100, 20
SECRETS = Surroundings(secrets=frozenset({"slack_sales"}))


def read(name: str) -> Blueprint:
    return Blueprint.parse((FOLDER / f"{name}.json").read_bytes())


def sample(name: str) -> Any:
    return next(entry["sample"] for entry in INDEX if entry["name"] == name)


def test_the_index_names_every_file_once() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.json") if path.name != "index.json")
    assert len(set(NAMES)) == len(NAMES) == 9
    assert len({entry["title"] for entry in INDEX}) == 9


@pytest.mark.parametrize("entry", INDEX, ids=NAMES)
def test_the_gallery_has_something_to_say_of_each(entry: dict[str, Any]) -> None:
    assert entry["title"] == read(entry["name"]).name
    assert 40 <= len(entry["summary"]) <= 200
    assert entry["icon"] in ICONS
    assert entry["category"]
    assert len(entry["teaches"]) >= 2
    assert "sample" in entry


def test_together_they_show_what_agents_are_made_of() -> None:
    used = {node.type for name in NAMES for node in read(name).nodes}
    assert used >= {
        "trigger.manual", "trigger.webhook", "trigger.schedule", "trigger.form", "trigger.chat",
        "validation.decide", "validation.switch", "validation.check_schema", "validation.filter_list", "validation.approve",
        "context.read_table", "context.http_request", "context.remember", "context.recall", "context.set_values",
        "action.ask_model", "action.run_code", "action.respond", "action.send_email", "action.slack_post", "action.aggregate",
        "action.agent", "context.memory", "action.transform", "action.write_file", "action.write_row", "action.text_template",
        "flow.for_each",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
class TestEachTemplate:
    def test_has_nothing_that_must_be_repaired(self, name: str) -> None:
        assert [one for one in check(read(name), TYPES, SECRETS) if one.severity != "hint"] == []

    def test_is_laid_out_so_that_nothing_covers_anything(self, name: str) -> None:
        blueprint = read(name)
        boxes = [(node.id, node.x, node.y, WIDTH, HEIGHT) for node in blueprint.nodes]
        boxes += [(note.id, note.x, note.y, note.width, note.height) for note in blueprint.notes]
        for one, other in combinations(boxes, 2):
            beside = one[1] + one[3] + GAP <= other[1] or other[1] + other[3] + GAP <= one[1]
            above = one[2] + one[4] + GAP <= other[2] or other[2] + other[4] + GAP <= one[2]
            assert beside or above, f"{one[0]} and {other[0]} are too close"

    def test_reads_from_left_to_right(self, name: str) -> None:
        graph = read_graph(read(name), TYPES)
        for edge in graph.edges:
            assert graph.placed[edge.source].x + WIDTH / 2 < graph.placed[edge.target].x + WIDTH / 4

    def test_explains_itself(self, name: str) -> None:
        blueprint = read(name)
        assert len(blueprint.description) > 60
        assert 2 <= len(blueprint.notes) <= 3
        assert all(20 < len(note.text) <= 160 for note in blueprint.notes)
        assert all(node.name for node in blueprint.nodes)
        assert len({node.name for node in blueprint.nodes}) == len(blueprint.nodes)

    def test_reaches_nothing_outside_in_the_sandbox(self, name: str) -> None:
        graph = read_graph(read(name), TYPES)
        for id_, node in graph.nodes.items():
            if node.hosts() is not None:
                assert node.effect_here() >= Effect.E3 or graph.placed[id_].pinned is not None


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    options = Options(
        laid_out(f"sqlite:///{tmp_path}/factory.db"),
        b"k" * 32,
        home=f"test-{uuid4().hex[:12]}",
        pool_size=0,
        ticking=False,
    )
    async with Factory(options) as opened:
        yield opened


async def run(factory: Factory, blueprint: Blueprint, given: Any) -> RunView:
    run_id = await factory.sandbox.start(WHO, blueprint, given)
    return await factory.runs.wait(WHO, run_id, 60)


def with_body(**changes: Any) -> dict[str, Any]:
    lead = {
        "name": "Bo",
        "email": "bo@example.com",
        "company": "Bo & Co",
        "employees": 3,
        "budget": 500,
        "newsletter": False,
    }
    return {"body": lead | changes}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.docker) if name == "clean-contacts" else name for name in NAMES]
)
async def test_it_runs_with_its_sample_and_with_what_its_trigger_offers(
    factory: Factory, name: str, request: pytest.FixtureRequest
) -> None:
    if name == "clean-contacts":
        request.getfixturevalue("worker_image")
    for given in (sample(name), None):
        view = await run(factory, read(name), given)
        assert view.info.error is None
        assert view.info.state == "succeeded"
        assert view.output is not None


ORDER = {"customer": {"name": "Ada", "email": "ada@example.com"}, "total": 20}
LEAVE = {"who": "Ada", "email": "ada@example.com", "from": "2026-07-06", "until": "2026-07-31", "why": None}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("order-desk", sample("order-desk"), "needs a look"),
        ("order-desk", {"body": ORDER}, "Your order is accepted."),
        ("order-desk", {"body": {"total": "many"}}, "“customer.name” is missing."),
        ("weekly-digest", sample("weekly-digest"), "would post to #sales"),
        ("leave-request", sample("leave-request"), "Your leave from 2026-07-06 is confirmed"),
        ("leave-request", {"answers": LEAVE}, "would e-mail manager@example.com: “Ada asks for 26 days off”"),
        ("leave-request", {"answers": LEAVE | {"until": "2026-07-01"}}, "Please check the dates of your request"),
        ("shop-assistant", {"text": "Hello?", "conversation": "c7"}, "The customer now says: Hello?"),
        ("help-desk", sample("help-desk"), "would e-mail accounts@example.com: “Refund order (sample order)”"),
        ("help-desk", {"text": "Hi"}, "“Look up an order”"),
        ("invoice-reminders", {"today": "2026-04-01"}, "reminders-2026-04-01.txt"),
        ("service-watch", sample("service-watch"), "would e-mail on-call@example.com"),
        ("lead-scoring", sample("lead-scoring"), "Grace Hopper of Navy Computing (96 points)"),
        ("lead-scoring", with_body(employees=30, budget=12_000), "“Keep as warm”"),
        ("lead-scoring", with_body(), "“Keep for later”"),
    ],
)
async def test_each_way_through_it_does_what_it_says(factory: Factory, name: str, given: Any, said: str) -> None:
    view = await run(factory, read(name), given)
    assert view.info.state == "succeeded"
    done = "".join(f"“{step.name}”" for step in view.steps if step.state == "succeeded")
    assert said in done + orjson.dumps([view.output, list(view.effects)]).decode()


async def test_a_digest_that_nobody_wants_is_kept_and_not_posted(factory: Factory) -> None:
    run_id = await factory.sandbox.start(WHO, read("weekly-digest"), None, pretend={"read": {"approved": False}})
    view = await factory.runs.wait(WHO, run_id, 60)
    assert view.output["name"] == "digest-not-posted.txt"
    assert not any("would post" in str(effect) for effect in view.effects)


async def test_the_invoice_report_adds_up_what_is_late(factory: Factory) -> None:
    view = await run(factory, read("invoice-reminders"), {"today": "2026-03-02"})
    report = next(step.output["text"] for step in view.steps if step.node == "report")
    assert "R-102: dear Grace Hopper, 1250.50 € have been due for 20 days." in report
    assert report.endswith("2 invoices, together 1340.50 €")


async def test_a_service_that_cannot_be_asked_is_reported_by_the_error_port(factory: Factory) -> None:
    document = read("service-watch").model_dump()
    asking = next(node for node in document["nodes"] if node["id"] == "ask")
    asking["pinned"], asking["settings"]["url"] = None, "https://127.0.0.1/status.json"
    view = await run(factory, Blueprint.parse(document), None)
    assert view.info.state == "succeeded"
    told = next(step.output["value"]["problem"] for step in view.steps if step.node == "silent")
    assert told.startswith("It cannot be asked: ")
    assert any("would e-mail on-call@example.com" in str(effect) for effect in view.effects)


@pytest.mark.docker
@pytest.mark.usefixtures("worker_image")
async def test_the_cleaning_code_tidies_names_and_drops_the_second_of_two(factory: Factory) -> None:
    view = await run(factory, read("clean-contacts"), {})
    kept = next(step.output["rows"] for step in view.steps if step.node == "table")
    assert [row["email"] for row in kept] == ["ada@example.com", "grace@example.com", "mary@example.com"]
    assert kept[0] == {"name": "Ada Lovelace", "email": "ada@example.com", "phone": "+442079460958"}
