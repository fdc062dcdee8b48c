"""What the server says: the form of errors, and the envelope of what is relayed."""

from __future__ import annotations

import json

import msgspec
import pytest

from pairing_server.errors import RateLimited, UnknownType, ValidationFailed
from pairing_server.relay import messages

NESTING = 16


def wrapped(payload: str) -> bytes:
    return messages.Envelope("pair-123456", NESTING).wrap(msgspec.Raw(payload.encode()), 1, None)


def test_an_error_message_has_the_five_fields_always() -> None:
    error = messages.error_message(UnknownType())
    assert msgspec.json.decode(messages.encode(error)) == {
        "type": "error",
        "code": "UNKNOWN_TYPE",
        "message": "Clients do not send messages of this type. Check `type`.",
        "details": {},
        "retryable": False,
    }


def test_rate_limited_says_when_in_milliseconds_and_that_it_may_be_tried_again() -> None:
    error = messages.error_message(RateLimited(0.25, limit="messages"))
    assert error.details == {"limit": "messages", "retry_after_ms": 250}
    assert error.retryable is True
    assert messages.error_message(RateLimited(0.00001)).details["retry_after_ms"] == 1


@pytest.mark.parametrize("id_", [None, "m1", 7, 'with "quotes"'])
def test_a_relayed_message_put_together_from_bytes_is_the_documented_struct(id_: str | int | None) -> None:
    payload = b'{ "a": [1, 2]}'
    described = messages.ToPeer(
        channel="pair-123456", channelId="pair-123456", payload=msgspec.Raw(payload), seq=9, id=id_
    )
    assert messages.Envelope("pair-123456", NESTING).wrap(payload, 9, id_) == messages.encode(described)


@pytest.mark.parametrize("payload", ["[]", '"{}"', "null", "1", '["{"]', "[{}]"])
def test_a_payload_is_an_object(payload: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        wrapped(payload)
    assert refused.value.details == {"field": "payload"}


@pytest.mark.parametrize("opened", ['{"a":', '{"a":['])
@pytest.mark.parametrize(("depth", "fine"), [(16, True), (18, False), (5000, False)])
def test_a_payload_nests_sixteen_deep_at_most(opened: str, depth: int, fine: bool) -> None:
    repeated = depth // (opened.count("{") + opened.count("["))
    closed = "}" if opened.endswith(":") else "]}"
    payload = opened * repeated + "1" + closed * repeated
    if fine:
        assert payload.encode() in wrapped(payload)
    else:
        with pytest.raises(ValidationFailed):
            wrapped(payload)


def test_brackets_in_strings_are_no_nesting() -> None:
    payload = json.dumps({"a": '[{"\\' * 100, "b": "}]" * 100})
    assert payload.encode() in wrapped(payload)


def test_an_id_of_braces_is_no_nesting_of_the_payload() -> None:
    message = messages.Envelope("pair-123456", 1).wrap(b'{"a":1}', 1, "{{[[")
    assert json.loads(message)["id"] == "{{[["
