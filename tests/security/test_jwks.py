from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key

from pairing_server.errors import InvalidToken
from pairing_server.security.issuers import Issuers
from pairing_server.security.jwks import FileSource, parse_jwks
from tests.security.provider import ISSUER, NOW, News, Provider, elliptic_key, public_jwk, rsa_key


async def has_key(issuers: Issuers, kid: str | None, now: datetime) -> bool:
    try:
        await issuers.key(ISSUER, kid, now)
    except InvalidToken as error:
        assert error.reason == "kid"
        return False
    return True


def later(**span: float) -> datetime:
    return NOW + timedelta(**span)


async def test_a_set_is_fetched_once_in_five_minutes(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    for seconds in (0, 1, 299):
        assert await has_key(issuers, "k1", later(seconds=seconds))
    assert provider.fetches == 1
    assert await has_key(issuers, "k1", later(seconds=300))
    assert provider.fetches == 2


async def test_a_new_key_works_at_once_and_a_removed_one_within_five_minutes_not(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    provider.keys = {"k2": elliptic_key()}
    assert await has_key(issuers, "k2", later(minutes=1))
    assert not await has_key(issuers, "k1", later(minutes=1))


async def test_a_removed_key_is_not_taken_once_more_after_a_quiet_night(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    provider.keys = {"k2": elliptic_key()}
    assert not await has_key(issuers, "k1", later(hours=8))


async def test_a_flood_of_unknown_kids_causes_one_fetch_a_minute(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    for tenth in range(1200):
        assert not await has_key(issuers, f"made-up-{tenth}", later(seconds=tenth / 10))
    assert provider.fetches == 2


async def test_callers_that_come_together_share_one_fetch(io_loop: object) -> None:
    provider = Provider()
    provider.hold = asyncio.Event()
    issuers = Issuers([provider.issuer()], provider.fetch)
    # Their clocks were read a moment apart, and not in the order in which they come to run.
    callers = [asyncio.ensure_future(has_key(issuers, "k1", later(milliseconds=100 - n))) for n in range(100)]
    await asyncio.sleep(0)
    provider.hold.set()
    assert await asyncio.gather(*callers) == [True] * 100
    assert await has_key(issuers, "k1", NOW)
    assert provider.fetches == 1


async def test_a_caller_that_gives_up_does_not_end_the_fetch_of_the_others(io_loop: object) -> None:
    provider = Provider()
    provider.hold = asyncio.Event()
    issuers = Issuers([provider.issuer()], provider.fetch)
    first, second = (asyncio.ensure_future(has_key(issuers, "k1", NOW)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    provider.hold.set()
    assert await second
    assert provider.fetches == 1


async def test_known_keys_work_for_a_day_while_the_provider_is_down(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    provider.down = True
    assert await has_key(issuers, "k1", later(hours=23, minutes=59))
    assert not await has_key(issuers, "k1", later(hours=24))
    provider.down = False
    assert await has_key(issuers, "k1", later(hours=24, minutes=1))


async def test_a_caller_with_a_known_key_does_not_wait_for_a_provider_that_is_down(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    provider.down = True
    assert await has_key(issuers, "k1", later(minutes=6))
    provider.hold = asyncio.Event()
    assert await has_key(issuers, "k1", later(minutes=8))
    await asyncio.sleep(0)
    assert provider.fetches == 3
    await issuers.close()


async def test_a_provider_that_is_down_is_asked_once_a_minute(io_loop: object) -> None:
    provider = Provider()
    provider.down = True
    issuers = Issuers([provider.issuer()], provider.fetch)
    for second in range(120):
        assert not await has_key(issuers, "k1", later(seconds=second))
    assert provider.fetches == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": {}}',
        b'{"keys": [{"kty": "oct", "k": "eA"}]}',
        b"[" * 60000,
        b'{"keys": [' + b" " * 70000 + b"]}",
        b"\xff",
    ],
)
async def test_a_broken_answer_never_replaces_good_keys(io_loop: object, answer: bytes) -> None:
    provider, news = Provider(), News()
    issuers = Issuers([provider.issuer()], provider.fetch, on_refresh=news.callback)
    assert await has_key(issuers, "k1", NOW)
    provider.answer = answer
    assert await has_key(issuers, "k1", later(minutes=5))
    assert provider.fetches == 2
    issuer, added, removed, error = news.told[-1]
    assert (issuer, added, removed) == (ISSUER, [], []) and error and "key set" in error


async def test_changes_and_failures_are_reported_once(io_loop: object) -> None:
    provider, news = Provider(), News()
    issuers = Issuers([provider.issuer()], provider.fetch, on_refresh=news.callback)
    await has_key(issuers, "k1", NOW)
    provider.keys = {"k1": elliptic_key(), "k2": elliptic_key()}
    await has_key(issuers, "k1", later(minutes=5))
    await has_key(issuers, "k1", later(minutes=10))
    provider.down = True
    for minute in (15, 16, 17):
        await has_key(issuers, "unknown", later(minutes=minute))
    provider.down = False
    await has_key(issuers, "unknown", later(minutes=18))
    away = "ConnectionError: the provider is away"
    assert news.told == [
        (ISSUER, ["k1"], [], None),
        # k1 is another key now, under the old name.
        (ISSUER, ["k1", "k2"], ["k1"], None),
        (ISSUER, [], [], away),
        (ISSUER, [], [], None),
    ]


async def test_a_clock_set_back_does_not_stop_refreshing(io_loop: object) -> None:
    provider = Provider()
    issuers = Issuers([provider.issuer()], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    assert await has_key(issuers, "k1", later(hours=-3))
    assert provider.fetches == 2


async def test_without_a_kid_the_only_key_is_meant(io_loop: object) -> None:
    one, two = Provider(), Provider(k1=elliptic_key(), k2=elliptic_key())
    assert await has_key(Issuers([one.issuer()], one.fetch), None, NOW)
    assert not await has_key(Issuers([two.issuer()], two.fetch), None, NOW)


async def test_a_file_is_read_again_when_it_changes(io_loop: object, tmp_path: Path) -> None:
    provider, file = Provider(), tmp_path / "keys.json"
    file.write_bytes(provider.jwks())
    issuers = Issuers([provider.issuer(jwks=str(file))], provider.fetch)
    assert await has_key(issuers, "k1", NOW)
    provider.keys = {"k2": elliptic_key()}
    file.write_bytes(provider.jwks())
    os.utime(file, ns=(1, 1))
    assert await has_key(issuers, "k2", NOW)
    assert not await has_key(issuers, "k1", NOW)
    assert provider.fetches == 0


async def test_the_keys_of_a_file_that_breaks_or_goes_are_used_for_a_day(
    io_loop: object, tmp_path: Path
) -> None:
    provider, news, file = Provider(), News(), tmp_path / "keys.json"
    file.write_bytes(provider.jwks())
    issuers = Issuers([provider.issuer(jwks=str(file))], provider.fetch, on_refresh=news.callback)
    assert await has_key(issuers, "k1", NOW)
    file.write_bytes(b"half of a fi")
    for hours in (1, 2):
        assert await has_key(issuers, "k1", later(hours=hours))
    file.unlink()
    assert await has_key(issuers, "k1", later(hours=23))
    assert not await has_key(issuers, "k1", later(hours=24))
    file.write_bytes(provider.jwks())
    assert await has_key(issuers, "k1", later(hours=25))
    errors = [error and error.partition(":")[0] for _, _, _, error in news.told]
    assert errors == [None, "ValueError", "FileNotFoundError", None]


async def test_a_file_that_has_not_changed_is_not_read_again(io_loop: object, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(b"one")
    source = FileSource(str(file))
    assert await source.read() == b"one"
    assert await source.read() is None
    file.write_bytes(b"longer")
    assert await source.read() == b"longer"


async def test_a_file_that_never_changes_never_ages(io_loop: object, tmp_path: Path) -> None:
    provider, file = Provider(), tmp_path / "keys.json"
    file.write_bytes(provider.jwks())
    issuers = Issuers([provider.issuer(jwks=str(file))], provider.fetch)
    for days in range(5):
        assert await has_key(issuers, "k1", later(days=days))


def test_keys_that_are_for_something_else_or_weak_are_left_out() -> None:
    good = public_jwk("good", elliptic_key())
    others = [
        public_jwk("encrypts", elliptic_key(), use="enc"),
        public_jwk("signs", elliptic_key(), key_ops=["sign"]),
        public_jwk("other-algorithm", elliptic_key(), alg="ES384"),
        public_jwk("padded-rsa", rsa_key(), alg="PS256"),
        public_jwk("short", rsa_key(1024)),
        public_jwk("other-curve", generate_private_key(SECP384R1())),
        {**public_jwk("off-curve", elliptic_key()), "x": good["x"]},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "RSA", "kid": "empty"},
        {**public_jwk(None, elliptic_key()), "kid": 7},
        "no object",
    ]
    assert set(parse_jwks(json.dumps({"keys": [*others, good]}).encode())) == {"good"}


def test_each_key_is_for_one_algorithm() -> None:
    body = json.dumps(
        {"keys": [public_jwk("r", rsa_key(), alg="RS256", use="sig"), public_jwk("e", elliptic_key())]}
    )
    assert {kid: key.algorithm for kid, key in parse_jwks(body.encode()).items()} == {
        "r": "RS256",
        "e": "ES256",
    }


def test_a_private_key_in_the_set_is_used_for_its_public_half_only() -> None:
    private = elliptic_key()
    jwk = public_jwk("k1", private, d="AAAA")
    key = parse_jwks(json.dumps({"keys": [jwk]}).encode())["k1"].key
    assert key == private.public_key()
