"""Every failure has a category, and each category is told in plain words."""

import importlib
import pkgutil

import pytest

import app
import nodes
import runtime
import storage
from nodes.base import NodeError
from nodes.blueprint import Blueprint, Policy
from nodes.categories import HOPELESS, Category
from nodes.errors import FactoryError, TooMany
from runtime.outcomes import category_of, explain


@pytest.mark.parametrize("category", Category)
def test_a_category_is_told_in_plain_words(category: Category) -> None:
    assert category.word and "_" not in category.word
    for sentence in (category.means, category.helps):
        assert sentence.endswith(".") and sentence[0].isupper()


def test_the_words_tell_the_categories_apart() -> None:
    assert len({category.word for category in Category}) == len(Category) == 10
    assert Category.REMOTE not in HOPELESS


def test_every_error_of_the_product_has_a_category() -> None:
    for room in (nodes, runtime, storage, app):
        for found in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            if not found.name.endswith(("__main__", "cli", "main")):
                importlib.import_module(found.name)
    waiting, seen = [FactoryError], set()
    while waiting:
        cls = waiting.pop()
        seen.add(cls)
        waiting += [each for each in cls.__subclasses__() if each not in seen]
        assert cls.category in Category
    assert len(seen) > 20


def test_a_step_that_names_no_known_category_counts_as_unforeseen() -> None:
    assert NodeError("No.", category="weather").category is Category.BUG
    assert NodeError("No.", category="timeout").category is Category.TIMEOUT
    assert NodeError("No.").code == "step.input"


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (NodeError("It is slow.", category="timeout"), "timeout"),
        (TooMany("Too many."), "limit"),
        (OSError("disk"), "worker"),
        (ZeroDivisionError(), "bug"),
    ],
)
def test_what_a_run_failed_of_is_explained_with_its_category(error: Exception, category: str) -> None:
    assert explain(error, None)["category"] == category == category_of(error)


def test_a_policy_keeps_its_categories_through_json() -> None:
    policy = {"retries": 2, "retry_on": ["timeout", "remote"], "on_error": "continue", "on_error_value": {"total": 0}}
    blueprint = Blueprint.parse({"nodes": [{"id": "a", "type": "action.x", "policy": policy}]})
    assert Blueprint.parse(blueprint.canonical()) == blueprint
    kept = blueprint.nodes[0].policy
    assert kept == Policy.model_validate(policy)
    assert kept.retry_on == [Category.TIMEOUT, Category.REMOTE]
