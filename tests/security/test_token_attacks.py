from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairing_server.errors import InvalidToken
from pairing_server.security.keys import SigningKey
from pairing_server.security.tokens import Tokens
from tests.security.forge import KEY, SECOND, access_token, base64url, hs256
from tests.security.forge import access_token as forged
from tests.security.provider import NOW

TOKENS = Tokens([KEY, SigningKey("before", b"b" * 32)])


async def refusal(token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await TOKENS.verify_access(token, NOW)
    assert not caught.value.details
    return caught.value.reason


def changed_signature(token: str) -> str:
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def changed_claims(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{access_token({'sub': 'admin'}).split('.')[1]}.{signature}"


def attacks(second: int) -> dict[str, tuple[str, str]]:
    """Access tokens that must be refused at that time, each with why."""

    def access_token(claims: Mapping[str, object] | None = None, **more: Any) -> str:
        return forged({"iat": second, "exp": second + 3600, **(claims or {})}, **more)

    return {
        "alg none": (
            hs256(b"", {"alg": "none", "kid": "now", "typ": "at+jwt"}, b"{}").rpartition(".")[0] + ".",
            "iss",
        ),
        "alg none with our claims": (access_token(headers={"alg": "none"}).rpartition(".")[0] + ".", "alg"),
        "alg HS384": (access_token(headers={"alg": "HS384"}), "alg"),
        "alg RS256": (access_token(headers={"alg": "RS256"}), "alg"),
        "alg left out": (access_token(headers={"alg": None}), "alg"),
        "alg a list": (access_token(headers={"alg": ["HS256"]}), "alg"),
        "typ JWT": (access_token(headers={"typ": "JWT"}), "typ"),
        "typ left out": (access_token(headers={"typ": None}), "typ"),
        "typ in capitals": (access_token(headers={"typ": "AT+JWT"}), "typ"),
        "kid unknown": (access_token(key=SigningKey("other", KEY.secret)), "kid"),
        "kid left out": (access_token(headers={"kid": None}), "kid"),
        "kid a path": (access_token(headers={"kid": "../../../dev/null"}), "kid"),
        "kid an SQL text": (access_token(headers={"kid": "x' UNION SELECT 'key"}), "kid"),
        "kid a number": (access_token(headers={"kid": 1}), "malformed"),
        "kid of the other key": (access_token(headers={"kid": "before"}), "signature"),
        "signed with another secret": (access_token(key=SigningKey("now", b"x" * 32)), "signature"),
        "signature changed": (changed_signature(access_token()), "signature"),
        "signature cut": (access_token()[:-3], "signature"),
        "claims changed": (changed_claims(access_token()), "signature"),
        "jwk of the key that signs": (
            access_token(key=SigningKey("now", b"x" * 32), headers={"jwk": {"kty": "oct", "k": "eHh4eHh4"}}),
            "signature",
        ),
        "zip": (access_token(headers={"zip": "DEF"}), "malformed"),
        "crit": (access_token(headers={"crit": ["exp"]}), "malformed"),
        "b64 false": (access_token(headers={"b64": False, "crit": ["b64"]}), "malformed"),
        "aud a list": (access_token({"aud": ["pairing-server/api"]}), "aud"),
        "aud of ws": (access_token({"aud": "pairing-server/ws"}), "aud"),
        "aud left out": (access_token({"aud": None}), "aud"),
        "aud longer": (access_token({"aud": "pairing-server/api2"}), "aud"),
        "iss of somebody": (access_token({"iss": "https://evil.io"}), "iss"),
        "iss nearly ours": (access_token({"iss": "pairing-server/"}), "iss"),
        "iss left out": (access_token({"iss": None}), "iss"),
        "iss a list": (access_token({"iss": ["pairing-server"]}), "iss"),
        "no exp": (access_token({"exp": None}), "malformed"),
        "no iat": (access_token({"iat": None}), "malformed"),
        "no sub": (access_token({"sub": None}), "malformed"),
        "no jti": (access_token({"jti": None}), "malformed"),
        "no sid": (access_token({"sid": None}), "malformed"),
        "exp 31 s ago": (access_token({"iat": second - 60, "exp": second - 31}), "expired"),
        "exp a text": (access_token({"exp": str(second + 60)}), "malformed"),
        "exp true": (access_token({"exp": True}), "malformed"),
        "exp endless": (access_token({"exp": 1e300}), "malformed"),
        "exp before iat": (access_token({"iat": second, "exp": second - 1}), "malformed"),
        "life longer than a day": (access_token({"exp": second + 86_401}), "malformed"),
        "iat negative": (access_token({"iat": -1}), "malformed"),
        "iat 31 s ahead": (access_token({"iat": second + 31}), "not_yet_valid"),
        "nbf 31 s ahead": (access_token({"nbf": second + 31}), "not_yet_valid"),
        "nbf true": (access_token({"nbf": True}), "malformed"),
        "nbf a text": (access_token({"nbf": "later"}), "malformed"),
        "sub empty": (access_token({"sub": ""}), "malformed"),
        "sub too long": (access_token({"sub": "u" * 256}), "malformed"),
        "sub with a control character": (access_token({"sub": "u1\n"}), "malformed"),
        "sub a number": (access_token({"sub": 1}), "malformed"),
        "sub a lone surrogate": (access_token({"sub": "\ud800"}), "malformed"),
        "a megabyte": (access_token({"more": "x" * 1_000_000}), "malformed"),
        "well signed but over 16 KiB": (access_token({"more": "x" * 12_200}), "malformed"),
        "claims nested deep": (access_token(payload=b"[" * 12_000), "malformed"),
        "claims nested deep in an object": (access_token(payload=b'{"a":' * 2_400), "malformed"),
        "claims a list": (access_token(payload=b"[]"), "malformed"),
        "claims not UTF-8": (access_token(payload=b'{"sub":"\xff"}'), "malformed"),
        "claims with NaN": (access_token({"exp": float("nan")}), "malformed"),
        "a number of 2900 digits": (access_token(payload=b'{"exp":' + b"9" * 2900 + b"}"), "iss"),
        "a claim twice": (access_token(payload=b'{"iss":"pairing-server","sub":"a","sub":"b"}'), "malformed"),
        "two parts": (access_token().rpartition(".")[0], "malformed"),
        "four parts": (access_token() + ".x", "malformed"),
        "padded": (access_token() + "=", "malformed"),
        "with a line feed": (access_token() + "\n", "malformed"),
        "in Unicode digits": (access_token() + "１", "malformed"),
        "empty": ("", "malformed"),
        "dots": ("..", "malformed"),
    }


ATTACKS = attacks(SECOND)


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_forged_or_misused_token_is_refused(io_loop: object, name: str) -> None:
    token, reason = ATTACKS[name]
    assert await refusal(token) == reason


async def test_the_token_that_the_attacks_are_made_of_is_good(io_loop: object) -> None:
    assert (await TOKENS.verify_access(access_token(), NOW)).subject == "u1"


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.io/keys"},
        {"x5u": "https://evil.io/cert"},
        {"jwk": {"kty": "oct", "k": "eA"}},
        {"x5c": ["MIIB" + "A" * 4_000]},
        {"x5t": "a", "x5t#S256": "b", "cty": "json", "unknown": {"a": [1]}},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_header_that_names_a_key_is_ignored(io_loop: object, headers: dict[str, object]) -> None:
    assert (await TOKENS.verify_access(access_token(headers=headers), NOW)).subject == "u1"


async def test_a_token_of_16_kib_is_good(io_loop: object) -> None:
    token = access_token({"more": "x" * 12_000})
    assert 16_000 < len(token) <= 16 * 1024
    assert (await TOKENS.verify_access(token, NOW)).subject == "u1"


async def test_a_part_spelt_another_way_is_refused(io_loop: object) -> None:
    # The last character of a part may hold bits that decode to nothing: same claims, another text.
    header, claims, signature = access_token(payload=b'{"iss":"pairing-server" }').split(".")
    assert len(claims) % 4 == 2
    other = claims[:-1] + chr(ord(claims[-1]) + 1)
    assert await refusal(f"{header}.{other}.{signature}") == "malformed"


@given(
    st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{0,40}\Z")
)
def test_garbage_is_refused_and_never_fails_otherwise(garbage: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.verify_ws(garbage, NOW)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_garbage_in_the_right_form_is_refused(header: bytes, claims: bytes) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.verify_ws(f"{base64url(header)}.{base64url(claims)}.AAAA", NOW)
