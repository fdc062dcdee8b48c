"""Names of new accounts: what looks the same is not two names, and no name is empty to the eye."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from pairing_server.security.usernames import usable
from pairing_server.store.users import username_key


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ada",
            "Ada Lovelace",
            "ada@pair.example",
            "a.b-c_d+1",
            "O'Brien",
            "007",
            "Zoë",
            "Straße",
            "Ægir",
            "Yıldız",
        ),
        *(
            "Нина",
            "Сергей 2",
            "Ελένη",
            "Դավիթ",
            "ნინო",
            "משה כהן",
            "فاطمة",
            "नेहा",
            "অমিত",
            "กมล",
            "ខ្មែរ",
            "සුනිල්",
        ),
        *(
            "山田 太郎",
            "やまだ",
            "ヤマダ",
            "サーバー",
            "김민수",
            "王小明",
            "ㄅㄆㄇ",
            "山田ひろし",
            "Ken 山田",
            "Kim 민수",
            "l·l",
        ),
        *("Nguyễn", "Łukasz", "Ọlá", "Đặng", "Þór", "ẁẃẅ", "a\u0301da", "x" * 64),
    ],
)
def test_a_name_of_one_script_is_kept_as_it_is_given(name: str) -> None:
    assert usable(name) == unicodedata.normalize("NFC", name)


def test_wide_and_narrow_forms_are_the_ordinary_ones() -> None:
    assert usable("Ａｌｉｃｅ") == "Alice"
    assert usable("ﾔﾏﾀﾞ") == "ヤマダ"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ali\u034fce",
            "ali\ufe0fce",
            "ali\u00adce",
            "ali\u200bce",
            "ali\u200cce",
            "ali\u200dce",
            "ali\u2060ce",
            "ali\ufeffce",
        ),
        *(
            "ali\u061cce",
            "ali\u202ece",
            "ali\u2066ce",
            "ali\u180ece",
            "ali\U000e0101ce",
            "ali\U000e0041ce",
            "ali\u115fce",
        ),
        *(
            "\u3164\u3164\u3164",
            "\u115f\u1160\u115f",
            "\u200b\u200b\u200b",
            "\u2800\u2800\u2800",
            "\u00a0\u00a0\u00a0",
        ),
        *(
            "   ",
            " ada",
            "ada ",
            "ada  l",
            "ada\u3000l",
            "ada\u00a0l",
            "ada\tl",
            "ada\nl",
            "ada\u2028l",
            "ada\x00",
            "ada\x1b[8m",
        ),
        *("\u0301ada", "ad\u0303\u0303a", "a\u0316\u0317\u0318\u0319\u031ada", "क\u094d\u200dष"),
        *("👍👍👍", "ⅷⅷⅷ", "ﬁnn", "ſam", "a’b", "a→b", "ada\ue000", "ada\udcff", "ad\U000e1234"),
        *("a|b|c", "a｜b", "8b1f5b4e-3c39-4d9e-9a60-6f2a3f2b7c11", "{8B1F5B4E3C394D9E9A606F2A3F2B7C11}"),
        *("ab", "x" * 65, "", "a\u0301b"),
    ],
)
def test_what_is_not_seen_or_is_no_letter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Must [^\x00-\x1f\u200b-\u200f\u2028-\u202e]+\.$"):
        usable(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "аlice",
            "alicе",
            "Ѕam",
            "pаypal",
            "αlice",
            "Τom",
            "Gοogle",
            "adaա",
            "ada৪",
            "нinа",
            "Нiна",
            "Ελeνη",
            "саша!x",
        ),
        *("abcд", "дabc", "ada नेहा", "Ken Нина", "Kim กมล", "ひらがな한국", "ㄅㄆ한", "कখग", "ada\u0660"),
    ],
)
def test_letters_of_several_scripts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Must be written in "):
        usable(name)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *(
            ("аӏісе", "alice"),
            ("СОСО", "coco"),
            ("раураӏ", "paypal"),
            ("ѕсоре 1", "scope 1"),
            ("ΡΟΡΑ", "popa"),
            ("օոս", "onu"),
        ),
        *(("ɑdɑ", "ada"), ("ɡrace", "grace"), ("৪৪৪", "888"), ("ꜱam", "sam"), ("ᴄoco", "coco")),
    ],
)
def test_letters_that_all_look_like_those_of_ascii_are_refused(name: str, read: str) -> None:
    with pytest.raises(ValueError, match=f"one would read {read}"):
        usable(name)


def test_names_that_differ_by_case_or_width_alone_are_the_same_name() -> None:
    """For each character that a name may have: as it is written, as RFC 8265 compares it, and as it is looked up."""
    for code in range(0x80, sys.maxunicode + 1):
        character = chr(code)
        if character.lower() == character == unicodedata.normalize("NFKC", character).casefold():
            continue
        try:
            kept = (
                usable(f"x{character}y")
                if character.isupper() or character.islower()
                else usable(character * 3)
            )
        except ValueError:
            continue
        assert username_key(kept) == username_key(kept.lower()), hex(code)
        assert username_key(kept) == username_key(unicodedata.normalize("NFKC", kept)), hex(code)
