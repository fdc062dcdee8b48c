from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pairing_server.errors import InvalidToken
from pairing_server.security.issuers import Issuer, Issuers, parse_issuers
from pairing_server.security.keys import SigningKey
from pairing_server.security.tokens import AccessClaims, Tokens
from tests.security.forge import KEY, SECOND, access_token
from tests.security.provider import (
    AUDIENCE,
    ISSUER,
    NOW,
    URL,
    PrivateKey,
    Provider,
    elliptic_key,
    rsa_key,
)


def trusting(provider: Provider) -> Tokens:
    return Tokens([KEY], issuers=Issuers([provider.issuer()], provider.fetch))


async def refusal(tokens: Tokens, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await tokens.verify_access(token, NOW)
    return caught.value.reason


def foreign_hs256(secret: bytes) -> str:
    """A token in the issuer's name, signed with a shared secret."""
    return access_token({"iss": ISSUER, "aud": AUDIENCE}, key=SigningKey("k1", secret))


@pytest.mark.parametrize("key", [rsa_key(), elliptic_key(), Ed25519PrivateKey.generate()])
async def test_a_foreign_token_is_taken_and_its_subject_names_the_issuer(
    io_loop: object, key: PrivateKey
) -> None:
    provider = Provider(k1=key)
    claims = await trusting(provider).verify_access(provider.token(jti="t1", sid="l1"), NOW)
    assert claims == AccessClaims(f"{ISSUER}|ada", "t1", "l1", NOW, NOW + timedelta(minutes=10), True)


async def test_a_foreign_token_without_ids_gets_steady_ones_of_its_own(io_loop: object) -> None:
    provider = Provider()
    tokens = trusting(provider)
    once = await tokens.verify_access(provider.token(), NOW)
    again = await tokens.verify_access(provider.token(), NOW)
    other = await tokens.verify_access(provider.token(sub="bob"), NOW)
    assert once.login_id == again.login_id == once.token_id
    assert once.login_id != other.login_id
    assert (await tokens.verify_access(provider.token(jti="t1", sid="\n"), NOW)).login_id == "t1"


@pytest.mark.parametrize("token_type", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_foreign_types_of_access_tokens_are_taken(io_loop: object, token_type: str | None) -> None:
    provider = Provider()
    # An empty typ makes PyJWT leave it out.
    token = provider.token(headers={"typ": token_type or ""})
    assert (await trusting(provider).verify_access(token, NOW)).foreign


async def test_a_foreign_audience_may_stand_in_a_list(io_loop: object) -> None:
    provider = Provider()
    token = provider.token(aud=[AUDIENCE, "https://id.example.com/userinfo"])
    assert (await trusting(provider).verify_access(token, NOW)).foreign


async def test_a_foreign_token_is_good_for_a_day_at_most(io_loop: object) -> None:
    provider = Provider()
    token = provider.token(exp=SECOND + 30 * 86_400)
    tokens = trusting(provider)
    assert (await tokens.verify_access(token, NOW)).expires_at == NOW + timedelta(days=1)
    with pytest.raises(InvalidToken) as caught:
        await tokens.verify_access(token, NOW + timedelta(days=1, seconds=30))
    assert caught.value.reason == "expired"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": ISSUER.removesuffix("/")}, "iss"),
        ({"iss": ISSUER + "x"}, "iss"),
        ({"iss": ISSUER.upper()}, "iss"),
        ({"aud": "https://other.example.com"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": [AUDIENCE, 7]}, "aud"),
        ({"aud": "pairing-server/api"}, "aud"),
        ({"exp": None}, "malformed"),
        ({"iat": None}, "malformed"),
        ({"sub": None}, "malformed"),
        ({"sub": "a\x00"}, "malformed"),
        ({"sub": "a" * 240}, "malformed"),
        ({"iat": SECOND - 600, "exp": SECOND - 31}, "expired"),
        ({"iat": SECOND + 31}, "not_yet_valid"),
        ({"nbf": SECOND + 31}, "not_yet_valid"),
    ],
)
async def test_a_foreign_token_with_wrong_claims_is_refused(
    io_loop: object, claims: dict[str, Any], reason: str
) -> None:
    provider = Provider()
    assert await refusal(trusting(provider), provider.token(**claims)) == reason


@pytest.mark.parametrize("token_type", ["ws+jwt", "WS+JWT", "application/ws+jwt", "id_token", "dpop+jwt"])
async def test_a_foreign_token_of_another_type_is_refused_without_a_fetch(
    io_loop: object, token_type: str
) -> None:
    provider = Provider()
    assert await refusal(trusting(provider), provider.token(headers={"typ": token_type})) == "typ"
    assert provider.fetches == 0


def test_a_foreign_token_never_opens_a_socket() -> None:
    provider = Provider()
    with pytest.raises(InvalidToken) as caught:
        trusting(provider).verify_ws(provider.token(headers={"typ": "ws+jwt"}, aud="pairing-server/ws"), NOW)
    assert caught.value.reason == "iss"


async def test_a_foreign_user_gets_a_ws_token_under_the_foreign_subject(io_loop: object) -> None:
    provider = Provider()
    tokens = trusting(provider)
    caller = await tokens.verify_access(provider.token(), NOW)
    assert (
        tokens.verify_ws(tokens.issue_ws(caller, "mobile", None, NOW).token, NOW).subject == f"{ISSUER}|ada"
    )


async def test_a_foreign_key_cannot_sign_for_us_nor_ours_for_the_issuer(io_loop: object) -> None:
    provider = Provider()
    tokens = trusting(provider)
    assert await refusal(tokens, provider.token(iss="pairing-server")) == "alg"
    assert await refusal(tokens, foreign_hs256(KEY.secret)) == "alg"


async def test_a_public_key_is_never_used_as_a_shared_secret(io_loop: object) -> None:
    provider = Provider(k1=rsa_key())
    tokens = trusting(provider)
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        pem = rsa_key().public_key().public_bytes(Encoding.PEM, form)
        assert await refusal(tokens, foreign_hs256(pem)) == "alg"


async def test_a_key_of_another_provider_does_not_sign_for_this_one(io_loop: object) -> None:
    provider = Provider()
    assert await refusal(trusting(provider), provider.token(key=elliptic_key())) == "signature"


async def test_the_algorithm_must_be_that_of_the_key(io_loop: object) -> None:
    provider = Provider(k1=elliptic_key(), k2=rsa_key())
    token = provider.token("k1", key=rsa_key())
    assert await refusal(trusting(provider), token) == "alg"


async def test_an_issuer_signs_with_its_own_algorithms_only(io_loop: object) -> None:
    provider = Provider(k1=elliptic_key())
    only_rsa = Issuers([Issuer(ISSUER, AUDIENCE, ("RS256",), URL)], provider.fetch)
    assert await refusal(Tokens([KEY], issuers=only_rsa), provider.token()) == "alg"
    with pytest.raises(InvalidToken) as caught:
        await only_rsa.key(ISSUER, "k1", NOW)
    assert caught.value.reason == "alg"


async def test_an_unknown_issuer_has_no_keys(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert issuers.knows(ISSUER) and not issuers.knows(ISSUER + "/")
    with pytest.raises(InvalidToken) as caught:
        await issuers.key("https://evil.io", "k1", NOW)
    assert caught.value.reason == "iss"


def entry(**changes: object) -> dict[str, object]:
    return {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256", "EdDSA"], "jwks": URL, **changes}


def test_issuers_are_read_from_json() -> None:
    text = json.dumps([entry(), entry(issuer="https://b.example", jwks="keys/b.json")])
    assert parse_issuers(text) == (
        Issuer(ISSUER, AUDIENCE, ("RS256", "EdDSA"), URL),
        Issuer("https://b.example", AUDIENCE, ("RS256", "EdDSA"), "keys/b.json"),
    )
    assert parse_issuers("  ") == ()


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "127.8.9.1:80", "[::1]:9000"])
def test_keys_by_plain_http_come_from_this_machine(host: str) -> None:
    assert parse_issuers(json.dumps([entry(jwks=f"http://{host}/jwks")]))


@pytest.mark.parametrize(
    ("jwks", "fault"),
    [
        ("http://id.example.com/jwks", "loopback"),
        ("http://localhost.evil.io/jwks", "loopback"),
        ("http://localhost@evil.io/jwks", "user"),
        ("https://id.example.com/jwks#k1", "fragment"),
        ("ftp://id.example.com/jwks", "https://"),
        ("file:///etc/keys", "https://"),
        ("https://", "https://"),
        ("https://id.example.com:99999/", "[Pp]ort"),
        ("", "jwks must be"),
    ],
)
def test_keys_from_an_unsafe_place_are_refused(jwks: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_issuers(json.dumps([entry(issuer="https://a.example"), entry(jwks=jwks)]))
    assert str(caught.value).startswith("issuer 2: ")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"algorithms": ["HS256"]}, "'HS256' is not one of"),
        ({"algorithms": ["none"]}, "'none' is not one of"),
        ({"algorithms": []}, "at least one"),
        ({"algorithms": "RS256"}, "must be a list"),
        ({"algorithms": [["RS256"]]}, "is not one of"),
        ({"issuer": "pairing-server"}, "own name"),
        ({"issuer": "a|b"}, r"must not contain \|"),
        ({"issuer": ""}, "issuer must be"),
        ({"issuer": 7}, "issuer must be"),
        ({"audience": None}, "audience must be"),
        ({"aud": "x"}, "unknown field 'aud'"),
    ],
)
def test_a_wrong_issuer_is_named_with_its_fault(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_issuers(json.dumps([entry(**changes)]))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[", "not JSON"),
        ("{}", "expected a JSON list"),
        ("[7]", "issuer 1: expected an object"),
        ("[" * 100_000, "nested too deep"),
        (json.dumps([entry(), entry()]), "occurs twice"),
    ],
)
def test_a_text_that_is_no_list_of_issuers_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_issuers(text)
