"""What a client calls itself cannot steer a log or a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest

from pairing_server.text import clean, plain, plain_json


def test_text_for_the_log_loses_what_is_invisible_and_nothing_else() -> None:
    for character in map(chr, (*range(0x3000), 0xD800, 0xE000, 0xFEFF, 0xFFFF, 0xE0001, 0x1F600)):
        category = unicodedata.category(character)
        kept = "" if category[0] == "C" or category in ("Zl", "Zp") else character
        assert clean(f"a{character}b") == f"a{kept}b", hex(ord(character))
    assert clean("x" * 300) == clean("\n" + "x" * 300) == "x" * 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("Ada Löwe 山田　太郎 🙂 a\u0301", "Ada Löwe 山田　太郎 🙂 a\u0301"),
        ("\x1bc", r"\x1bc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b8m\x7f\x85", r"\x9b8m\x7f\x85"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202eb\u2066c\u200f\u2028\u2029\ufeff", r"\u202eb\u2066c\u200f\u2028\u2029\ufeff"),
        ("\U000e0041\ue000\udcff", r"\U000e0041\ue000\udcff"),
    ],
)
def test_what_would_control_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_every_character_is_shown_as_itself_or_by_an_escape_that_is_plain() -> None:
    for character in map(chr, range(0x110000)):
        shown = plain(character)
        assert shown == character or (shown.isascii() and shown.isprintable()), hex(ord(character))


def test_what_is_kept_is_kept() -> None:
    assert plain("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_json_means_the_same_and_has_no_such_character() -> None:
    value = {"\x9b\x1b": ["\u202e\u2028\x7f", "\U000e0041", "ada 🙂", '\\"\n', 1.5, None]}
    text = plain_json(value)
    assert json.loads(text) == value
    assert not [
        c for c in text if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")
    ]
    assert "ada 🙂" in text
