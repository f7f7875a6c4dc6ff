"""Messages for people: the nearest valid name, and codes for shells."""

from __future__ import annotations

import pytest

from common.errors import BadInputError, NonFiniteError, RethesisError, StoppedError, unknown

SCALES = ("smoke", "laptop", "workstation", "paper")


def test_codes_are_those_of_the_documents() -> None:
    codes = {
        kind: kind("x").exit_code for kind in (RethesisError, BadInputError, NonFiniteError, StoppedError)
    }
    assert codes == {RethesisError: 1, BadInputError: 2, NonFiniteError: 70, StoppedError: 75}


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("labtop", "laptop"),
        ("Laptop", "laptop"),
        ("work", "workstation"),
        ("papr", "paper"),
        ("smok", "smoke"),
    ],
)
def test_the_nearest_name_is_offered(given: str, nearest: str) -> None:
    error = unknown("SCALE", given, SCALES)
    assert error.exit_code == 2
    assert str(error) == (
        f"unknown SCALE {given!r}. Did you mean {nearest!r}? Valid: laptop, paper, smoke, workstation."
    )


def test_of_many_names_only_the_nearest_are_listed() -> None:
    message = str(
        unknown("key", "agent.actr_lr", [f"agent.layer{i}" for i in range(500)] + ["agent.actor_lr"])
    )
    assert "Did you mean 'agent.actor_lr'?" in message
    assert message.count("agent.layer") < 10
    assert "Nearest: agent.actor_lr" in message


def test_with_nothing_valid_it_says_so() -> None:
    assert str(unknown("PROJECT", "x", [])) == "unknown PROJECT 'x'. Valid: none."
    assert str(unknown("PROJECT", "", ["a"])) == "which PROJECT? For example PROJECT=a. Valid: a."
