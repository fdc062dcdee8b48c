"""user … and token …: accounts from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from pairing_server.clock import utcnow
from pairing_server.security.keys import parse_keys
from tests.cli.commands import NO_DATABASE, Operator
from tests.conftest import StartNode
from tests.devices import Site

PASSWORD = "correct horse battery"
KEYS = "k1:" + "s" * 32


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, JWT_KEYS=KEYS)


@pytest.fixture
def site(start_node: StartNode) -> Site:
    """A node with the keys that the commands use."""
    return start_node(jwt_keys=parse_keys(KEYS))


def add(operator: Operator, name: str, *more: str) -> UUID:
    told = operator.says("user", "add", name, *more, stdin=f"{PASSWORD}\n")
    return UUID(told.rstrip(".\n").rpartition(" ")[2])


def fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) for c in text)


def rows(operator: Operator) -> list[list[str]]:
    return [line.split("\t") for line in operator.says("user", "list").splitlines()]


def test_an_added_user_is_listed_with_role_status_and_id(operator: Operator) -> None:
    zoe = add(operator, "zoë")
    root = add(operator, "Root", "--role", "admin")
    listed = rows(operator)
    assert [(row[0], row[1], row[2]) for row in listed] == [
        ("Root", "admin", "enabled"),
        ("zoë", "user", "enabled"),
    ]
    assert [row[4] for row in listed] == [str(root), str(zoe)]


def test_without_accounts_the_list_says_how_to_make_one(operator: Operator) -> None:
    done = operator.run("user", "list")
    assert (done.status, done.out) == (0, "")
    assert "pairing-server user add" in done.err


async def test_an_added_user_can_log_in_and_a_disabled_one_cannot(site: Site, operator: Operator) -> None:
    add(operator, "alice")
    credentials = {"username": "alice", "password": PASSWORD}
    assert (await site.post("/api/auth/login", credentials)).status == 200
    assert operator.says("user", "disable", "alice") == "alice is disabled.\n"
    assert rows(operator)[0][2] == "disabled"
    assert (await site.post("/api/auth/login", credentials)).status == 401
    assert "alice was disabled already." in operator.refuses("user", "disable", "alice")
    assert operator.says("user", "enable", "alice") == "alice is enabled.\n"
    assert "alice was enabled already." in operator.refuses("user", "enable", "alice")
    assert (await site.post("/api/auth/login", credentials)).status == 200


async def test_a_new_password_replaces_the_old_one(site: Site, operator: Operator) -> None:
    add(operator, "alice")
    operator.says("token", "issue", "alice")
    told = operator.says("user", "set-password", "alice", stdin="another long password\n")
    assert told == "alice has a new password. Logins ended: 1.\n"
    old = await site.post("/api/auth/login", {"username": "alice", "password": PASSWORD})
    new = await site.post("/api/auth/login", {"username": "alice", "password": "another long password"})
    assert (old.status, new.status) == (401, 200)


async def test_an_issued_token_is_an_access_token_of_that_user(site: Site, operator: Operator) -> None:
    add(operator, "alice")
    token = operator.says("token", "issue", "alice", "--ttl", "60").strip()
    answer = await site.post("/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, token)
    assert answer.status == 200
    short, long = (
        operator.says("token", "issue", "alice", "--ttl", "60"),
        operator.says("token", "issue", "alice"),
    )
    claims = [await site.node.backend.tokens.verify_access(each.strip(), utcnow()) for each in (short, long)]
    lives = [(claim.expires_at - claim.issued_at).total_seconds() for claim in claims]
    # It expires at a whole second.
    assert lives == [pytest.approx(60, abs=1), pytest.approx(86_400, abs=1)]
    assert all(claim.issued_at <= utcnow() for claim in claims)


async def test_the_role_set_decides_who_reads_the_audit_log(site: Site, operator: Operator) -> None:
    add(operator, "alice")
    token = operator.says("token", "issue", "alice").strip()
    assert (await site.get("/api/audit", token)).status == 403
    assert operator.says("user", "set-role", "alice", "auditor") == "alice is auditor now.\n"
    assert (await site.get("/api/audit", token)).status == 200
    assert operator.says("user", "set-role", "alice", "user") == "alice is user now.\n"
    assert "The role of alice was user already." in operator.refuses("user", "set-role", "alice", "user")
    assert len(await site.events("account.role_changed")) == 2
    assert (await site.get("/api/audit", token)).status == 403


async def test_every_change_of_an_account_is_in_the_audit_log(site: Site, operator: Operator) -> None:
    alice = str(add(operator, "alice"))
    operator.says("user", "disable", "alice")
    operator.says("user", "enable", "alice")
    operator.says("user", "set-password", "alice", stdin="another long password")
    operator.says("user", "set-role", "alice", "admin")
    operator.says("token", "issue", "alice")
    for name in ("created", "disabled", "enabled", "password_changed", "role_changed"):
        [event] = await site.events(f"account.{name}")
        assert (event["outcome"], event["target"]) == ("success", alice)
    assert [(e["was"], e["role"]) for e in await site.events("account.role_changed")] == [("user", "admin")]
    assert [event["target"] for event in await site.events("auth.token_issued")] == [alice]


def test_a_taken_name_is_refused_however_it_is_written(operator: Operator) -> None:
    add(operator, "Alice")
    assert "This username is taken." in operator.refuses("user", "add", "ALICE", stdin=PASSWORD)
    assert "This username is taken." in operator.refuses("user", "add", "ａlice", stdin=PASSWORD)
    assert len(rows(operator)) == 1


def test_a_name_or_password_that_is_not_allowed_is_explained(operator: Operator) -> None:
    told = operator.refuses("user", "add", "al", stdin="short")
    assert "Must be 3 to 64 characters." in told
    assert "Must be 12 to 128 characters." in told
    assert "without U+0009." in operator.refuses("user", "add", "ali\tce", stdin=PASSWORD)
    assert "the letters of one script" in operator.refuses("user", "add", "аlice", stdin=PASSWORD)


@pytest.mark.parametrize("name", ["https://id.example|4711", "a|b|c", "｜｜｜", "ali｜ce"])
def test_no_name_can_be_taken_for_a_user_of_another_issuer(operator: Operator, name: str) -> None:
    assert "Must not have the character |." in operator.refuses("user", "add", name, stdin=PASSWORD)


@pytest.mark.parametrize(
    "form", ["{}", "{{{}}}", "urn:uuid:{}", lambda i: i.upper(), lambda i: i.replace("-", ""), fullwidth]
)
def test_no_name_can_be_taken_for_the_id_of_an_account(
    operator: Operator, form: str | Callable[[str], str]
) -> None:
    alice = str(add(operator, "alice"))
    name = form.format(alice) if isinstance(form, str) else form(alice)
    assert "Must not look like an account's id" in operator.refuses("user", "add", name, stdin=PASSWORD)


def test_without_a_password_on_standard_input_nothing_is_done(operator: Operator) -> None:
    assert "password on standard input" in operator.refuses("user", "add", "alice")
    assert "password on standard input" in operator.refuses("user", "add", "alice", stdin="\n")
    assert operator.run("user", "list").out == ""


def test_a_password_that_is_not_text_is_refused(operator: Operator) -> None:
    assert "UTF-8" in operator.refuses("user", "add", "alice", stdin=b"\xff\xfe long enough for one\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("user", "disable", "nobody"),
        ("user", "enable", "nobody"),
        ("user", "set-password", "nobody"),
        ("user", "set-role", "nobody", "admin"),
        ("token", "issue", "nobody"),
    ],
)
def test_an_unknown_user_is_named_with_the_way_to_the_list(
    operator: Operator, arguments: tuple[str, ...]
) -> None:
    told = operator.refuses(*arguments, stdin=PASSWORD)
    assert "There is no user 'nobody'; see: pairing-server user list" in told


def test_no_token_is_issued_to_a_disabled_user(operator: Operator) -> None:
    add(operator, "alice")
    operator.says("user", "disable", "alice")
    assert "disabled" in operator.refuses("token", "issue", "alice")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("user", "add"), "Missing argument 'NAME'"),
        (("user", "add", "alice", "--role", "king"), "'auditor'"),
        (("user", "set-role", "alice", "king"), "'auditor'"),
        (("token", "issue", "alice", "--ttl", "59"), "60<=x<=86400"),
        (("user", "remove", "alice"), "No such command 'remove'"),
        (("user", "list", "--all"), "No such option"),
    ],
)
def test_a_wrong_use_is_explained_and_exits_with_2(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    assert told in Operator(NO_DATABASE, tmp_path).refuses(*arguments, status=2)


def test_a_database_that_is_away_is_told_with_the_setting_to_check(tmp_path: Path) -> None:
    told = Operator(NO_DATABASE, tmp_path).refuses("user", "list")
    assert "Connection refused" in told
    assert "Check PAIRING_DATABASE_URL" in told
    assert "secret" not in told


def test_to_delete_a_user_of_whom_nothing_is_kept_is_no_success(operator: Operator) -> None:
    told = operator.refuses("user", "delete", "--yes", "https://id.example|4711")
    assert "Nothing is kept of the user 'https://id.example|4711'" in told


def test_an_account_is_deleted_once_that_is_confirmed(operator: Operator) -> None:
    operator.says("user", "add", "alice", stdin=PASSWORD)
    asked = operator.run("user", "delete", "alice", stdin="n\n")
    assert asked.status != 0 and "alice" in operator.says("user", "list")
    done = operator.says("user", "delete", "--yes", "alice")
    assert done == "alice is deleted. Logins ended: 0, pairings: 0.\n"
    assert "There is no user" in operator.refuses("user", "delete", "--yes", "alice")
