"""Environments: where an agent is deployed. Live is for real; test is the same agent with addresses and values of its own."""

from typing import Final, Literal

from nodes.errors import FactoryError

Environment = Literal["live", "test"]

LIVE: Final = "live"
TEST: Final = "test"
SHARED: Final = ""
"""Of a secret or variable: one value for every environment."""
ENVIRONMENTS: Final = (LIVE, TEST)
PLACES: Final = (SHARED, LIVE, TEST)
"""Where a value may be kept."""

TEST_PATH: Final = "test/"
"""What the addresses of a test deployment begin with."""


class UnknownEnvironment(FactoryError):
    """Neither live nor test."""

    code = "environment.unknown"
    status = 422


def check_environment(name: str) -> str:
    """The name of an environment to deploy to or run in. Raises UnknownEnvironment."""
    if name not in ENVIRONMENTS:
        raise UnknownEnvironment(f"There is no environment “{name[:40]}”.", fix="Choose “live” or “test”.")
    return name


def check_place(name: str) -> str:
    """Where a secret or variable is kept: an environment, or empty for both. Raises UnknownEnvironment."""
    return check_environment(name) if name else SHARED
