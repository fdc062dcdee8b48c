"""What is taken for a code, of what people type."""

from __future__ import annotations

import pytest

from pairing_server.services.codes import Codes


@pytest.mark.parametrize(
    "typed",
    [
        "123456",
        "123 456",
        " 1 2 3 4 5 6 ",
        "123-456",
        "12-34-56",
        "١٢٣٤٥٦",
        "۱۲۳۴۵۶",
        "１２３４５６",
        "१२३४५६",
        "𝟏𝟐𝟑𝟒𝟓𝟔",
        "12३४５٦",
        "123\N{NO-BREAK SPACE}456",
        "123\N{IDEOGRAPHIC SPACE}456",
        "123\N{NON-BREAKING HYPHEN}456",
        "123\N{EN DASH}456",
        "123 \N{EM DASH} 456",
        "123\N{MINUS SIGN}456",
        "123\N{FULLWIDTH HYPHEN-MINUS}456",
        "\N{RIGHT-TO-LEFT MARK}١٢٣٤٥٦\N{ARABIC LETTER MARK}",
        "123\N{ZERO WIDTH SPACE}456\n",
        "\t123456\r\n",
        "¹²³⁴⁵⁶",
    ],
)
def test_six_digits_that_a_person_typed_are_the_code(typed: str) -> None:
    assert Codes.parse(typed) == "123456"


@pytest.mark.parametrize(
    "typed",
    [
        *("", "12345", "1234567", "12345a", "123_456", "123.456", "123,456", "+123456", "0x1234", "1e5000"),
        *("½23456", "Ⅳ23456", "一二三四五六", "123456\0", "#123456", "12345６７", "-", "1" * 16_000),
    ],
)
def test_anything_else_is_none(typed: str) -> None:
    assert Codes.parse(typed) is None


def test_zeros_stay_where_they_are() -> None:
    assert Codes.parse("٠٠٠-٠٠٧") == "000007"
