"""Accounts over HTTP: register, log in, ws tokens. Rules of the tokens themselves: tests/security."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.errors import BadCredentials, RateLimited
from pairing_server.request_context import RequestContext, system
from pairing_server.security.addresses import parse_networks
from pairing_server.store import users
from pairing_server.store.users import User
from tests.conftest import StartNode
from tests.devices import Answer, Site
from tests.web.clock import waits_for

PASSWORD = "correct horse battery"


@pytest.fixture
def closed(start_node: StartNode) -> Site:
    return start_node(registration="closed")


@pytest.fixture
def proxied(start_node: StartNode) -> Site:
    """Believes the test's X-Forwarded-For."""
    return start_node(trusted_proxies=parse_networks(["127.0.0.1"]))


async def register(site: Site, username: Any, password: Any = PASSWORD) -> Answer:
    return await site.post("/api/auth/register", {"username": username, "password": password})


async def login(site: Site, username: str, password: str = PASSWORD, **headers: str) -> Answer:
    body = {"username": username, "password": password}
    return await site.call("POST", "/api/auth/login", body, headers=headers)


async def disable(site: Site, username: str) -> None:
    assert await site.node.services.accounts.set_disabled(system(utcnow()), username, True)


# Registering


async def test_registering_answers_201_with_the_users_id_and_name(site: Site) -> None:
    answer = await register(site, "Ada Lovelace")
    assert answer.status == 201
    assert answer.body == {"user_id": answer.body["user_id"], "username": "Ada Lovelace"}
    token = (await login(site, "Ada Lovelace")).body["token"]
    assert (await site.node.backend.tokens.verify_access(token, utcnow())).subject == answer.body["user_id"]


async def test_a_taken_name_is_refused_also_in_another_case_or_unicode_form(site: Site) -> None:
    await site.account("Zoë")
    for same in ("Zoë", "ZOË", "Zoe\u0308", "\uff3aoë"):
        answer = await register(site, same)
        assert (answer.status, answer.error) == (409, "USERNAME_TAKEN"), ascii(same)


async def test_a_name_that_looks_like_another_is_refused_and_says_why(site: Site) -> None:
    for alike in (
        "ad\u034fa",
        "ada\ufe0f",
        "\u0430d\u0430",
        "a\u0501a",
        "\u3164\u3164\u3164",
        "\u0430\u0430\u0440",
    ):
        answer = await register(site, alike)
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), ascii(alike)
        [text] = answer.body["details"]["fields"]["username"]
        assert text.startswith("Must ")


@pytest.mark.parametrize(
    "name", ["ad\u034fa", "\u0430da", "👍👍👍", "a|b", "8b1f5b4e-3c39-4d9e-9a60-6f2a3f2b7c11", "ﬁnn"]
)
async def test_an_account_that_is_older_than_a_rule_of_names_logs_in_as_ever(site: Site, name: str) -> None:
    older = User(uuid4(), name, "user", utcnow(), None)
    async with site.node.database.transaction() as conn:
        assert await users.add(conn, older, await site.node.services.accounts.passwords.hash(PASSWORD))
    answer = await login(site, name)
    assert answer.status == 200, answer
    claims = await site.node.backend.tokens.verify_access(answer.body["token"], utcnow())
    assert claims.subject == older.subject


async def test_of_several_who_register_one_name_at_once_one_gets_it(site: Site) -> None:
    answers = await asyncio.gather(*(register(site, "grace") for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]


async def test_nobody_registers_where_registration_is_closed(closed: Site) -> None:
    answer = await register(closed, "grace")
    assert (answer.status, answer.error) == (403, "FORBIDDEN")
    assert (await login(closed, "grace")).status == 401


WRONG_ACCOUNTS: list[tuple[Any, Any, set[str]]] = [
    ("ad", PASSWORD, {"username"}),
    ("a" * 65, PASSWORD, {"username"}),
    (" ada", PASSWORD, {"username"}),
    ("ada ", PASSWORD, {"username"}),
    ("ada\nlove", PASSWORD, {"username"}),
    ("ada\u0000", PASSWORD, {"username"}),
    ("ada\u202eevil", PASSWORD, {"username"}),
    (7, PASSWORD, {"username"}),
    (None, None, {"username", "password"}),
    ("ada", "a" * 11, {"password"}),
    ("ada", "a" * 129, {"password"}),
    ("ad", "short", {"username", "password"}),
]


async def test_a_wrong_name_or_password_of_a_new_account_is_named(site: Site) -> None:
    for username, password, wrong in WRONG_ACCOUNTS:
        answer = await register(site, username, password)
        assert (answer.status, answer.error) == (422, "VALIDATION_ERROR"), (username, password)
        fields = answer.body["details"]["fields"]
        assert set(fields) == wrong, (username, password)
        assert all(isinstance(text, str) for texts in fields.values() for text in texts)
    missing = await site.post("/api/auth/register", {})
    assert set(missing.body["details"]["fields"]) == {"username", "password"}


async def test_the_longest_and_the_shortest_name_and_password_are_taken(site: Site) -> None:
    assert (await register(site, "a" * 64, "p" * 128)).status == 201
    assert (await register(site, "ada", "p" * 12)).status == 201


# Logging in


async def test_logging_in_answers_with_a_bearer_token_that_works(site: Site) -> None:
    await register(site, "ada")
    answer = await login(site, "ada")
    assert answer.status == 200
    assert answer.body == {"token": answer.body["token"], "token_type": "Bearer", "expires_in": 86400}
    assert (await site.get("/api/pairings", answer.body["token"])).status == 200


async def test_name_and_password_are_compared_in_any_unicode_form(site: Site) -> None:
    await register(site, "Zoë", "pass w\u00f6rd 1234")
    assert (await login(site, "ZOE\u0308", "pass wo\u0308rd 1234")).status == 200


async def test_an_unknown_a_wrong_and_a_disabled_login_look_the_same(site: Site) -> None:
    await register(site, "ada")
    await register(site, "gone")
    await disable(site, "gone")
    answers = [
        await login(site, "nobody"),
        await login(site, "ada", "wrong password"),
        await login(site, "gone"),
    ]
    assert {answer.status for answer in answers} == {401}
    assert [answer.body for answer in answers] == [answers[0].body] * 3
    assert [answer.headers["WWW-Authenticate"] for answer in answers] == ["Bearer"] * 3


async def test_a_login_that_is_no_login_is_422(site: Site) -> None:
    bodies: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"username", "password"}),
        ({"username": "ada", "password": 12}, {"password"}),
        ({"username": ["ada"], "password": PASSWORD}, {"username"}),
        ({"username": "a\u0000da", "password": PASSWORD}, {"username"}),
        ({"username": "a" * 257, "password": "b" * 1025}, {"username", "password"}),
    ]
    for body, wrong in bodies:
        answer = await site.post("/api/auth/login", body)
        assert (answer.status, set(answer.body["details"]["fields"])) == (422, wrong)


async def test_after_ten_failures_a_name_is_locked_also_if_nobody_has_it(site: Site) -> None:
    await register(site, "ada")
    await register(site, "grace")
    for name in ("ada", "nobody"):
        began = utcnow()
        # Made at once: each is counted before its password is looked at.
        answers = await asyncio.gather(*(login(site, name, f"wrong password {n}") for n in range(13)))
        assert sorted(answer.status for answer in answers) == [401] * 10 + [429] * 3
        locked = await login(site, name.upper())
        assert (locked.status, locked.error) == (429, "RATE_LIMITED")
        assert waits_for(locked, 900, began)
    assert (await login(site, "grace")).status == 200


async def test_a_locked_name_is_free_again_when_the_failures_are_fifteen_minutes_old(site: Site) -> None:
    await register(site, "ada")
    now = utcnow()
    caller = RequestContext(utcnow(), address="203.0.113.7", address_key="203.0.113.7")
    for _ in range(10):
        with pytest.raises(BadCredentials):
            await site.node.services.authentication.log_in(caller.at(now), "ada", "wrong password")
    with pytest.raises(RateLimited) as locked:
        await site.node.services.authentication.log_in(
            caller.at(now + timedelta(seconds=899)), "ada", PASSWORD
        )
    assert locked.value.retry_after_s == 1
    later = now + timedelta(seconds=900)
    assert (
        await site.node.services.authentication.log_in(caller.at(later), "ada", PASSWORD)
    ).expires_in == 86400


async def test_a_success_neither_counts_nor_resets_what_has_failed(site: Site) -> None:
    await register(site, "ada")
    assert [(await login(site, "ada", "wrong password")).status for _ in range(9)] == [401] * 9
    assert [(await login(site, "ada")).status for _ in range(2)] == [200] * 2
    assert (await login(site, "ada", "wrong password")).status == 401
    assert (await login(site, "ada")).status == 429


async def test_an_address_is_locked_after_thirty_failures_with_any_names(proxied: Site) -> None:
    await register(proxied, "ada")
    began = utcnow()
    guesses = (login(proxied, f"name{n}", **{"X-Forwarded-For": "203.0.113.7"}) for n in range(30))
    assert {answer.status for answer in await asyncio.gather(*guesses)} == {401}
    locked = await login(proxied, "ada", **{"X-Forwarded-For": "203.0.113.7"})
    assert (locked.status, locked.error) == (429, "RATE_LIMITED")
    assert waits_for(locked, 900, began)
    assert (await login(proxied, "ada", **{"X-Forwarded-For": "203.0.113.8"})).status == 200


# ws tokens


async def test_a_ws_token_says_whose_and_which_device_it_is_for(site: Site) -> None:
    account = await site.account()
    for device_type, path in (
        ("desktop", "/api/auth/ws-token"),
        ("mobile", "/api/auth/ws-token-mobile"),
    ):
        answer = await site.post(path, {"username": "My device"}, account.token)
        assert answer.status == 200
        assert answer.body == {"token": answer.body["token"], "expires_in": site.node.config.ws_token_ttl}
        claims = site.node.backend.tokens.verify_ws(answer.body["token"], utcnow())
        assert (claims.subject, claims.device_type) == (account.subject, device_type)
        assert claims.label == "My device"


async def test_the_label_of_a_ws_token_is_optional_and_cleaned(site: Site) -> None:
    token = (await site.account()).token
    bodies: list[tuple[dict[str, Any] | None, str | None]] = [
        (None, None),
        ({}, None),
        ({"username": None}, None),
        ({"username": ""}, None),
        ({"username": "\u0000\u202e\n"}, None),
        ({"username": "A\u0000d\na\u202e"}, "Ada"),
        ({"username": "ø" * 128}, "ø" * 128),
    ]
    for body, label in bodies:
        answer = await site.post("/api/auth/ws-token", body, token)
        assert answer.status == 200, body
        assert site.node.backend.tokens.verify_ws(answer.body["token"], utcnow()).label == label
    for wrong in ("a" * 129, 7, ["a"]):
        answer = await site.post("/api/auth/ws-token", {"username": wrong}, token)
        assert (answer.status, set(answer.body["details"]["fields"])) == (422, {"username"})


async def test_without_an_access_token_there_is_no_ws_token(site: Site) -> None:
    for path in ("/api/auth/ws-token", "/api/auth/ws-token-mobile"):
        nobody = await site.post(path, {})
        assert (nobody.status, nobody.error) == (401, "UNAUTHORIZED")
        assert nobody.headers["WWW-Authenticate"] == "Bearer"
        for header in ("Bearer nonsense", "Bearer", "Basic YTpi"):
            bad = await site.post(path, {}, Authorization=header)
            assert (bad.status, bad.error) == (401, "INVALID_TOKEN")
            assert bad.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_neither_kind_of_token_is_taken_in_the_others_place(site: Site) -> None:
    account = await site.account()
    ws_token = await site.ws_token(account, "desktop")
    for method, path in (("POST", "/api/auth/ws-token"), ("GET", "/api/pairings"), ("GET", "/api/audit")):
        answer = await site.call(method, path, {} if method == "POST" else None, ws_token)
        assert (answer.status, answer.error) == (401, "INVALID_TOKEN")
    socket = await site.open(account.token)
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401


async def test_a_disabled_users_access_token_opens_nothing_more(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, "desktop-session")
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    await disable(site, account.username)
    answers = [
        await site.post("/api/auth/ws-token", {}, account.token),
        await site.post("/api/auth/ws-token-mobile", {}, account.token),
        await site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-2"}, account.token),
        await site.redeem(account, code, "mobile-session"),
        await site.get("/api/pairings", account.token),
        await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token),
    ]
    assert [(answer.status, answer.error) for answer in answers] == [(401, "INVALID_TOKEN")] * 6
