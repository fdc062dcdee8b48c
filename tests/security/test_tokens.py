from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from pairing_server.errors import InvalidToken
from pairing_server.security import jws
from pairing_server.security.keys import SigningKey, format_keys, generate_key, parse_keys
from pairing_server.security.tokens import AccessClaims, Tokens
from tests.security.forge import KEY, SECOND, access_token
from tests.security.provider import NOW, elliptic_key

PREVIOUS = SigningKey("before", b"b" * 32)
TOKENS = Tokens([KEY, PREVIOUS], ws_ttl=3600)


def caller(**changes: Any) -> AccessClaims:
    given_claims = {
        "subject": "u1",
        "token_id": "t1",
        "login_id": "l1",
        "issued_at": NOW,
        "expires_at": NOW,
        "foreign": False,
    }
    return AccessClaims(**{**given_claims, **changes})


async def refusal(token: str, now: datetime = NOW, tokens: Tokens = TOKENS) -> str:
    with pytest.raises(InvalidToken) as caught:
        await tokens.verify_access(token, now)
    assert not caught.value.details
    return caught.value.reason


async def test_an_access_token_names_its_user_and_login(io_loop: object) -> None:
    issued = TOKENS.issue_access("u1", NOW)
    claims = await TOKENS.verify_access(issued.token, NOW)
    assert claims == AccessClaims("u1", issued.token_id, issued.login_id, NOW, NOW + timedelta(days=1), False)
    assert (issued.expires_in, issued.kid) == (86_400, "now")


def test_each_login_and_each_token_has_an_id_of_its_own() -> None:
    made = [TOKENS.issue_access("u1", NOW) for _ in range(10)]
    assert len({one.login_id for one in made} | {one.token_id for one in made}) == 20


def test_a_ws_token_carries_the_callers_login_and_its_device_type() -> None:
    issued = TOKENS.issue_ws(caller(), "mobile", "Ada's phone", NOW)
    claims = TOKENS.verify_ws(issued.token, NOW)
    assert (claims.subject, claims.device_type, claims.login_id) == ("u1", "mobile", "l1")
    assert (claims.token_id, claims.label) == (issued.token_id, "Ada's phone")
    assert claims.expires_at == NOW + timedelta(seconds=issued.expires_in) == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("label", "cleaned"),
    [(None, None), ("", None), (" \n", None), (" a\x00\u202eb\ud800 ", "ab"), ("é" * 300, "é" * 128)],
)
def test_a_label_is_cleaned_and_cut(label: str | None, cleaned: str | None) -> None:
    assert TOKENS.verify_ws(TOKENS.issue_ws(caller(), "desktop", label, NOW).token, NOW).label == cleaned


def test_the_longest_names_still_fit_into_a_ws_token() -> None:
    longest = caller(subject="😀" * 255, login_id="😀" * 128)
    token = TOKENS.issue_ws(longest, "desktop", "😀" * 200, NOW).token
    assert TOKENS.verify_ws(token, NOW).subject == "😀" * 255


async def test_neither_kind_of_token_is_taken_for_the_other(io_loop: object) -> None:
    assert await refusal(TOKENS.issue_ws(caller(), "desktop", None, NOW).token) == "typ"
    with pytest.raises(InvalidToken) as caught:
        TOKENS.verify_ws(TOKENS.issue_access("u1", NOW).token, NOW)
    assert caught.value.reason == "typ"


def test_a_ws_token_is_not_made_by_type_alone() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"dev": "mobile"}, "aud"),
        ({"aud": "pairing-server/ws"}, "malformed"),
        ({"aud": "pairing-server/ws", "dev": "watch"}, "malformed"),
        ({"aud": "pairing-server/ws", "dev": "mobile", "label": 7}, "malformed"),
        ({"aud": "pairing-server/ws", "dev": "mobile", "exp": SECOND + 3601}, "malformed"),
        ({"aud": "pairing-server/ws", "dev": "mobile", "iss": "https://id.example.com/"}, "iss"),
    ]
    for claims, reason in cases:
        with pytest.raises(InvalidToken) as caught:
            TOKENS.verify_ws(access_token(claims, headers={"typ": "ws+jwt"}), NOW)
        assert (claims, caught.value.reason) == (claims, reason)


async def test_clocks_may_differ_by_half_a_minute(io_loop: object) -> None:
    for claims in [{"iat": SECOND - 60, "exp": SECOND - 29}, {"iat": SECOND + 29}, {"nbf": SECOND + 29}]:
        assert (await TOKENS.verify_access(access_token(claims), NOW)).subject == "u1"


async def test_the_time_given_counts_not_the_clock_of_the_machine(io_loop: object) -> None:
    for now in [datetime(2001, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)]:
        token = TOKENS.issue_access("u1", now, ttl=60).token
        assert (await TOKENS.verify_access(token, now)).expires_at == now + timedelta(seconds=60)
        assert await refusal(token, now + timedelta(seconds=90)) == "expired"
        assert await refusal(token, now - timedelta(seconds=31)) == "not_yet_valid"


async def test_after_a_rotation_old_tokens_live_until_their_key_is_taken_away(io_loop: object) -> None:
    old = Tokens([PREVIOUS]).issue_access("u1", NOW).token
    assert (await TOKENS.verify_access(old, NOW)).subject == "u1"
    assert TOKENS.issue_access("u1", NOW).kid == "now"
    assert await refusal(old, tokens=Tokens([KEY])) == "kid"


async def test_a_longer_lifetime_than_a_day_must_be_set(io_loop: object) -> None:
    with pytest.raises(ValueError, match="86400 seconds"):
        TOKENS.issue_access("u1", NOW, ttl=86_401)
    week = Tokens([KEY], access_ttl=7 * 86_400)
    issued = week.issue_access("u1", NOW)
    assert issued.expires_in == 7 * 86_400
    assert (await week.verify_access(issued.token, NOW)).expires_at == NOW + timedelta(days=7)
    assert await refusal(issued.token) == "malformed"


async def test_a_shorter_lifetime_ends_no_login(io_loop: object) -> None:
    day = TOKENS.issue_access("u1", NOW).token
    assert (await Tokens([KEY], access_ttl=60).verify_access(day, NOW)).subject == "u1"


@pytest.mark.parametrize("subject", ["", "https://id.example.com/|ada", "u" * 256, "u\n"])
def test_a_user_of_ours_cannot_get_a_foreign_or_odd_subject(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        TOKENS.issue_access(subject, NOW)


def test_a_ws_token_is_for_a_desktop_or_a_mobile() -> None:
    with pytest.raises(ValueError, match="desktop or mobile"):
        TOKENS.issue_ws(caller(), "watch", None, NOW)


def test_no_repr_shows_a_secret_or_a_token() -> None:
    issued = TOKENS.issue_access("u1", NOW)
    assert KEY.secret.decode() not in repr(KEY)
    assert issued.token not in repr(issued) and issued.token_id in repr(issued)


def test_keys_are_read_in_order_and_the_first_signs() -> None:
    text = f" now:{'n' * 32}, before:{'b' * 30}:: \n"
    assert parse_keys(text) == (KEY, SigningKey("before", b"b" * 30 + b"::"))


def test_generated_keys_survive_being_written_down() -> None:
    keys = (generate_key(), generate_key())
    assert parse_keys(format_keys(keys)) == keys
    assert keys[0].kid != keys[1].kid and len(keys[0].secret) >= 48


def test_a_key_that_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(ValueError, match="comma") as caught:
        format_keys([SigningKey("a", b"x" * 32 + b",b:" + b"y" * 32)])
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "key 1 is not kid:secret"),
        ("TOPSECRET" * 4, "key 1 is not kid:secret"),
        (f"a:{'TOPSECRET' * 4},", "key 2 is not kid:secret"),
        (f"a b:{'TOPSECRET' * 4}", "kid of key 1"),
        (f"{'TOPSECRET' * 8}:x", "kid of key 1"),
        (f"a:{'TOPSECRET' * 4},a:{'TOPSECRET' * 4}", "twice"),
        ("a:TOPSECRET", "fewer than 32 bytes"),
    ],
)
def test_a_wrong_key_text_is_explained_without_the_secret(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_keys(text)
    assert "TOPSECRET" not in str(caught.value)


@pytest.mark.parametrize("keys", [[], [KEY, SigningKey("now", b"z" * 32)]])
def test_keys_must_be_there_and_have_different_names(keys: list[SigningKey]) -> None:
    with pytest.raises(ValueError, match="key"):
        Tokens(keys)


async def test_a_foreign_token_is_refused_where_no_issuer_is_trusted(io_loop: object) -> None:
    raw = json.dumps({"iss": "https://id.example.com/"}).encode()
    token = jwt.PyJWS().encode(raw, elliptic_key(), algorithm="ES256", headers={"kid": "k1"})
    assert await refusal(token) == "iss"


def test_a_secret_that_is_another_kind_of_key_neither_signs_nor_verifies() -> None:
    pem = b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
    token = jws.sign({"iss": "x"}, b"s" * 32, kid="k", token_type="t")
    for _ in range(2):
        with pytest.raises(jwt.InvalidKeyError):
            jws.sign({"iss": "x"}, pem, kid="k", token_type="t")
        with pytest.raises(InvalidToken):
            jws.parse(token).verified(pem, ["HS256"])
    assert jws.parse(token).verified(b"s" * 32, ["HS256"]) == {"iss": "x"}
    with pytest.raises(InvalidToken):
        jws.parse(token).verified(b"t" * 32, ["HS256"])
