"""Bodies of requests as JSON objects."""

from __future__ import annotations

import json
from typing import Any

from pairing_server.errors import InvalidRequest

# A body that is larger than it may be is read and thrown away up to this size: a client that is cut off while it sends
# would not see the answer.
DRAINED_SIZE = 1024 * 1024


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidRequest with what is wrong with it."""
    try:
        data = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
        if b"\\u" in body:
            # Lone surrogates, which only an escape can bring, pass json.loads and fail wherever they are written.
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise InvalidRequest("The body cannot be read. Send UTF-8 without lone surrogates.") from None
    except (ValueError, RecursionError) as error:
        fault = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise InvalidRequest(f"The body is not JSON: {fault}. Send one JSON object.") from None
    if not isinstance(data, dict):
        raise InvalidRequest()
    return data
