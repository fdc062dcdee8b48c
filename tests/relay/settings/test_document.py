"""What a single settings_sync does to the shared document. How whole stories end: test_convergence.py."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from pairing_server.errors import PayloadTooLarge, ValidationFailed
from pairing_server.relay.settings.document import SETTLE_AFTER, SETTLE_LATE, Merge, SettingsDocument
from pairing_server.relay.settings.echo_detector import ALLOWANCE
from pairing_server.relay.settings.json_values import Value

Settings = dict[str, bytes]

START: Settings = {"gain": b"50", "vad": b"false", "language": b'"nl"', "chunk": b"3.0"}


def shared(now: float = 0.0) -> SettingsDocument:
    """The desktop has sent START; the mobile got it and has sent it again."""
    document = SettingsDocument()
    document.merge("desktop", START, now)
    document.note_delivery("mobile", now)
    document.merge("mobile", START, now + 0.1)
    return document


def edit(document: SettingsDocument, role: str, edits: Settings, now: float) -> Merge | None:
    """The role sends the whole document with these edits; what changed goes to the peer."""
    merge = document.merge(role, document.raw() | edits, now)
    if merge is not None:
        document.note_delivery("mobile" if role == "desktop" else "desktop", now)
    return merge


def test_the_first_object_becomes_the_document() -> None:
    document = SettingsDocument()

    assert document.merge("desktop", START, 0.0) == Merge(tuple(START), 1)
    assert document.raw() == START


def test_only_what_differs_is_a_change() -> None:
    document = shared()

    assert document.merge("desktop", START | {"gain": b"51"}, 1.0) == Merge(("gain",), 2)
    assert document.raw() == START | {"gain": b"51"}


def test_what_a_device_sends_back_changes_nothing() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 1.0)
    assert document.merge("mobile", START | {"gain": b"75"}, 1.2) is None
    assert (document.rev, document.settle_at) == (2, None)


def test_the_echo_of_an_older_document_is_not_an_edit_back() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 1.0)
    edit(document, "desktop", {"gain": b"76"}, 1.1)

    assert document.merge("mobile", START | {"gain": b"75"}, 1.2) is None
    assert document.raw()["gain"] == b"76"


def test_an_echo_written_anew_in_another_language_is_an_echo() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75", "label": b'{"a":"\xc3\xa9","b":[1,true]}'}, 1.0)

    anew = {"gain": b" 75.0", "label": b'{"b": [1.0, true], "a": "\\u00e9"}', "chunk": b"3"}
    assert document.merge("mobile", START | anew, 1.2) is None
    assert document.raw()["gain"] == b"75"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.0", "3"),
        ("9007199254740993", "9007199254740992"),
        ("-0", "0"),
        ("1e2", "100"),
        ("1e400", "null"),  # what JSON.stringify makes of Infinity
        ("9" * 400, "null"),
        (r'"\u0061\/"', '"a/"'),
        (r'"\uD83D\uDE00"', '"\U0001f600"'),
        (r'"\uD800"', r'"\ud800"'),
        ('{"a": 1, "b": [2, {}]}', '{"b":[2.0,{}],"a":1}'),
        ('[{"a":[-0.0,1e400,"-0.0"]}]', '[{"a":[0,null,"-0.0"]}]'),
    ],
)
def test_values_that_clients_hold_alike_are_the_same(one: str, other: str) -> None:
    assert Value(one.encode()).same(Value(other.encode()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("true", "1"),
        ("false", "0"),
        ("null", "false"),
        ("null", "0"),
        ('"1"', "1"),
        ("[true]", "[1]"),
        ("[1,2]", "[2,1]"),
        ("{}", "[]"),
        ('{"a":null}', "{}"),
        ('"Infinity"', "null"),
        ('["-0.0",-0.0]', '["0.0",0]'),
        ("[" * 5000 + "]" * 5000, "[]"),
    ],
)
def test_values_that_differ_to_clients_are_not_the_same(one: str, other: str) -> None:
    assert not Value(one.encode()).same(Value(other.encode()))
    assert Value(one.encode()).same(Value(one.encode()))


def test_a_large_value_is_compared_as_one_text_and_not_number_by_number() -> None:
    # Each message is compared with dozens of documents: sixty a second of 16 KiB would take all of a processor.
    large = Value(b"[" + b"1," * 7000 + b"1]")
    assert large.meaning == "[" + "1.0," * 7000 + "1.0]"


def test_the_stale_part_of_a_whole_object_reverts_nothing() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)

    # The mobile has not seen the new gain yet.
    assert document.merge("mobile", START | {"vad": b"true"}, 5.05) == Merge(("vad",), 3)
    assert document.raw() == START | {"gain": b"75", "vad": b"true"}


def test_after_crossing_edits_the_one_that_cannot_know_is_sent_the_document_again() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)
    edit(document, "mobile", {"gain": b"20"}, 5.05)

    assert document.settle_at == pytest.approx(5.05 + SETTLE_AFTER)
    assert document.settle(5.2) == ()
    assert document.settle(5.05 + SETTLE_AFTER) == ("mobile",)
    document.note_delivery("mobile", 5.45)
    assert document.settle_at is None


def test_a_relayed_document_settles_its_receiver_already() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)
    edit(document, "mobile", {"gain": b"20"}, 5.05)
    edit(document, "desktop", {"gain": b"30"}, 5.3)

    assert document.settle(6.0) == ("desktop",)


def test_a_quiet_user_may_take_back_what_the_peer_has_just_set() -> None:
    document = SettingsDocument()
    document.merge("desktop", START, 0.0)
    document.merge("mobile", START, 0.0)  # no echo: nothing had been sent to it
    edit(document, "desktop", {"vad": b"true"}, 10.0)

    assert document.merge("mobile", START, 10.8) == Merge(("vad",), 3)
    assert document.raw()["vad"] == b"false"


def test_a_client_that_sends_parts_may_take_back_what_the_peer_has_just_set() -> None:
    document = SettingsDocument()
    document.merge("desktop", START, 0.0)
    document.note_delivery("mobile", 0.0)
    document.merge("mobile", {"gain": b"10"}, 2.0)
    document.merge("desktop", {"gain": b"20"}, 10.0)
    document.note_delivery("mobile", 10.0)

    assert document.merge("mobile", {"gain": b"10"}, 10.8) == Merge(("gain",), 4)


def test_an_edit_that_is_ignored_as_an_echo_is_undone_at_the_client_too() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)
    edit(document, "desktop", {"gain": b"76"}, 5.1)
    document.merge("mobile", START | {"gain": b"75"}, 5.9)

    assert document.settle_at is not None
    assert document.settle(5.9 + SETTLE_AFTER) == ("mobile",)


def test_a_slow_link_is_thought_of_later() -> None:
    document = SettingsDocument()
    edit(document, "desktop", START, 5.0)
    document.merge("mobile", {"gain": b"20"}, 15.0)

    assert document.settle_at == pytest.approx(15.0 + SETTLE_LATE)


def test_a_device_that_edits_alone_is_never_sent_the_document() -> None:
    document = SettingsDocument()
    for second in range(100):
        edit(document, "desktop", {"gain": str(second).encode()}, float(second))

    assert document.settle_at is None


def test_base_rev_is_exact() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)

    # The mobile has seen rev 2, and sets the gain back at once; then it sets it once more, still at rev 2.
    assert document.merge("mobile", START, 5.05, base_rev=2) == Merge(("gain",), 3)
    assert document.merge("mobile", START | {"gain": b"75"}, 5.06, base_rev=2) == Merge(("gain",), 4)
    # The desktop has not seen those: its gain is stale, its vad is not.
    assert document.merge("desktop", START | {"vad": b"true"}, 5.1, base_rev=1) == Merge(("vad",), 5)
    assert document.raw() == START | {"gain": b"75", "vad": b"true"}


def test_what_fills_is_merged_only_where_there_is_nothing() -> None:
    document = SettingsDocument()
    document.merge("mobile", {"gain": b"75"}, 0.0)

    assert document.merge("desktop", START, 0.1, fill=True) == Merge(("vad", "language", "chunk"), 2)
    assert document.raw() == START | {"gain": b"75"}


def test_a_device_that_fills_with_other_values_gets_the_document() -> None:
    document = SettingsDocument()
    document.merge("mobile", {"gain": b"75"}, 0.0)

    assert document.merge("desktop", {"gain": b"50"}, 0.1, fill=True) is None
    assert document.settle(0.1 + SETTLE_AFTER) == ("desktop",)


def test_a_fill_is_merged_though_the_device_has_sent_it_before() -> None:
    document = SettingsDocument()
    with pytest.raises(PayloadTooLarge):
        document.merge("mobile", {"gain": b"50", "pad": b'"' + b"x" * 20_000 + b'"'}, 0.0)

    assert document.merge("mobile", {"gain": b"50"}, 0.1, fill=True) == Merge(("gain",), 1)
    assert document.merge("mobile", {"gain": b"50"}, 0.2, fill=True) is None


def test_an_edit_after_filling_counts() -> None:
    document = SettingsDocument()
    document.merge("mobile", START, 0.0, fill=True)

    assert document.merge("mobile", {"gain": b"51"}, 0.1, base_rev=0) == Merge(("gain",), 2)


@pytest.mark.parametrize("base_rev", [10**9, -1, 2])
def test_an_unknown_base_rev_counts_as_none(base_rev: int) -> None:
    document = shared()
    for number in range(100):  # rev 2 is forgotten
        edit(document, "desktop", {"gain": str(number).encode()}, number / 10)
    edit(document, "desktop", {"vad": b"true"}, 20.0)

    merge = document.merge("mobile", START | {"gain": b"99", "chunk": b"5"}, 20.1, base_rev)
    assert merge is not None
    assert merge.changed == ("chunk",)


def test_a_lying_base_rev_does_not_make_an_echo_an_edit() -> None:
    document = shared()
    edit(document, "desktop", {"gain": b"75"}, 5.0)
    edit(document, "desktop", {"gain": b"76"}, 5.1)

    assert document.merge("mobile", START | {"gain": b"75"}, 5.2, base_rev=1) is None


def test_the_same_object_again_on_a_new_socket_reverts_nothing() -> None:
    document = SettingsDocument()
    document.merge("mobile", START, 0.0)
    document.merge("desktop", {"gain": b"75"}, 60.0)  # the mobile is away
    document.note_reconnect("mobile")
    document.note_delivery("mobile", 90.0)

    assert document.merge("mobile", START, 90.4) is None
    assert document.raw()["gain"] == b"75"
    assert document.settle_at is not None


def test_more_keys_than_allowed_change_nothing() -> None:
    document = SettingsDocument(max_keys=4)
    document.merge("desktop", START, 0.0)

    with pytest.raises(ValidationFailed) as refused:
        document.merge("mobile", {"vad": b"true", "one_more": b"1"}, 1.0)

    assert refused.value.details == {"field": "settings"}
    assert (document.rev, document.raw(), document.settle_at) == (1, START, None)


def test_a_document_of_just_the_allowed_size_is_taken_and_one_byte_more_is_not() -> None:
    size = len(json.dumps({key: json.loads(raw) for key, raw in START.items()}, separators=(",", ":")))
    document = SettingsDocument(max_bytes=size)
    document.merge("desktop", START, 0.0)

    with pytest.raises(PayloadTooLarge) as refused:
        document.merge("desktop", {"gain": b"100"}, 1.0)

    assert refused.value.details == {"limit": size, "size": size + 1}
    assert (document.rev, document.raw()) == (1, START)


def test_a_device_that_only_repeats_what_it_was_sent_is_stopped_in_the_end() -> None:
    document = SettingsDocument()
    document.merge("desktop", {"gain": b"1"}, 0.0)
    for number in range(3 * ALLOWANCE):
        now = 2.0 * number
        document.note_delivery("mobile", now)
        document.merge("desktop", {"gain": b"%d" % (number % 2)}, now)
        document.note_delivery("mobile", now)
        document.merge("mobile", {"gain": b"%d" % ((number + 1) % 2)}, now + 1.9)

    assert (
        document.merge("mobile", {"gain": b"0" if document.raw()["gain"] == b"1" else b"1"}, now + 1.95)
        is None
    )
    assert document.settle_at is not None
    assert document.merge("mobile", {"gain": b"2"}, now + 1.99) is not None


def test_memory_does_not_grow_with_the_number_of_edits() -> None:
    document = shared()

    def slide(start: int) -> None:
        for number in range(start, start + 1500):
            edit(document, "desktop", {"gain": b"%d" % number}, number / 60)

    slide(0)
    tracemalloc.start()
    slide(1500)
    before, _ = tracemalloc.get_traced_memory()
    slide(3000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000
