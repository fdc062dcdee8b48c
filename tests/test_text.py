"""What a client calls itself cannot steer a log or a terminal."""

from __future__ import annotations

import unicodedata

from pairing_server.text import clean


def test_text_for_the_log_loses_what_is_invisible_and_nothing_else() -> None:
    for character in map(chr, (*range(0x3000), 0xD800, 0xE000, 0xFEFF, 0xFFFF, 0xE0001, 0x1F600)):
        category = unicodedata.category(character)
        kept = "" if category[0] == "C" or category in ("Zl", "Zp") else character
        assert clean(f"a{character}b") == f"a{kept}b", hex(ord(character))
    assert clean("x" * 300) == clean("\n" + "x" * 300) == "x" * 200
