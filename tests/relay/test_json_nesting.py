"""How deep a value nests, whatever its strings hold, and what finding that costs."""

from __future__ import annotations

import gc
import json
import sys

from hypothesis import given
from hypothesis import strategies as st

from pairing_server.relay.json_nesting import too_deep


def test_a_payload_full_of_brackets_costs_no_object_for_each() -> None:
    """A count of Python calls, since times are noisy: it does not grow with the number of brackets."""

    def calls(raw: bytes) -> int:
        seen = 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1

        # What is collected meanwhile, and calls something, is others'.
        gc.disable()
        sys.setprofile(count)
        try:
            too_deep(raw, 16)
        finally:
            sys.setprofile(None)
            gc.enable()
        return seen

    few, many = (b'{"a":[' + b"[]," * count + b"[]]}" for count in (20, 20_000))
    assert calls(many) == calls(few)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{}"\\ab'),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\k', max_size=4), inner, max_size=4)
    ),
    max_leaves=30,
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(JSON, st.integers(0, 6))
def test_too_deep_is_the_depth_of_the_value_whatever_its_strings_hold(value: object, limit: int) -> None:
    assert too_deep(json.dumps(value).encode(), limit) == (depth(value) > limit)
