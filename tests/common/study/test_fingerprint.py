"""Fingerprints: formatting never counts, any change of meaning does, and only what is reached."""

from __future__ import annotations

import ast

from hypothesis import given
from hypothesis import strategies as st

from common.study.fingerprint import code_hashes, short, source_hash

SOURCE = '''"""Module."""
import math


class Unit:
    """A class."""

    def area(self, r):
        """A method."""
        return math.pi * r**2  # why


def empty():
    """Only a docstring."""
'''


def test_comments_formatting_and_docstrings_do_not_count() -> None:
    other = (
        SOURCE.replace("  # why", "")
        .replace('"""A method."""', '"""Another."""')
        .replace("\n\n\n", "\n\n# x\n")
    )
    assert source_hash(SOURCE) == source_hash(other)
    assert source_hash(SOURCE) == source_hash(ast.unparse(ast.parse(SOURCE)))


def test_a_constant_a_name_and_a_string_count() -> None:
    for old, new in (("r**2", "r**3"), ("math.pi", "math.tau"), ("def area", "def volume")):
        assert source_hash(SOURCE) != source_hash(SOURCE.replace(old, new))
    assert source_hash("x = 'a'") != source_hash("x = 'b'")
    assert source_hash("def f():\n    return 1\n") != source_hash("def f():\n    return 1.0\n")


def test_closure_holds_what_is_imported_and_packages_but_not_the_pipeline() -> None:
    reached = code_hashes(("common.training.stop",))
    assert {"common", "common.training", "common.training.stop"} <= set(reached)
    assert not [
        name for name in reached if name.startswith(("common.study", "common.tracking", "common.errors"))
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_count(value: dict[str, object]) -> None:
    assert short(value) == short(dict(reversed(list(value.items()))))
