"""What the doctor finds besides its steps: each finding where it is due and nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pairing_server.audit.seals import SealKey, TrustedKey, format_key
from pairing_server.cli.doctor import checks
from pairing_server.cli.doctor.checks import check_configuration, check_connection, check_database, is_weak
from pairing_server.client import PairingClient
from pairing_server.config import Configuration
from pairing_server.db import migrations
from pairing_server.security.addresses import parse_networks
from pairing_server.security.keys import SigningKey, generate_key
from pairing_server.security.origins import Origins
from tests.cli.commands import NO_DATABASE, Operator
from tests.cli.serving import serving
from tests.conftest import execute, execute_within
from tests.devices import Account, Site

GOOD = Configuration(
    jwt_keys=(generate_key(),),
    public_url="https://pairing.example",
    trusted_proxies=parse_networks(["127.0.0.1"]),
    registration="closed",
    data_dir=Path("/nonexistent"),
)


def told(**changed: object) -> list[str]:
    return [finding.problem for finding in check_configuration(replace(GOOD, **changed), {})]  # type: ignore[arg-type]


def test_good_settings_have_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.resource, "getrlimit", lambda _: (65536, 65536))
    assert told() == []
    local = {"public_url": "http://127.0.0.1:8089", "registration": "open", "trusted_proxies": ()}
    assert told(**local) == [], "on one's own machine all this is right"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"jwt_keys": (SigningKey("k1", b"change-me-change-me-change-me-please"),)},
            "key 'k1' can be guessed",
        ),
        ({"trusted_proxies": parse_networks(["0.0.0.0/1"])}, r"almost everywhere \(0.0.0.0/1\)"),
        ({"trusted_proxies": parse_networks(["::/1"])}, "almost everywhere"),
        ({"allowed_origins": Origins.parse(["null"])}, "without an origin of their own"),
        ({"public_url": "http://pairing.example"}, "tokens and codes can be read"),
        ({"trusted_proxies": ()}, "through a proxy that is not trusted"),
        ({"registration": "open"}, "Anyone may register an account"),
        ({"host": "0.0.0.0", "public_url": "http://0.0.0.0:8089"}, "another name get 403"),
        ({"host": "::", "public_url": "http://[::]:8089"}, "another name get 403"),
        ({"host": "192.0.2.7", "public_url": "http://localhost:8089"}, "another name get 403"),
        (
            {"registration": "open", "public_url": "http://127.0.0.1:8089"},  # GOOD trusts a proxy
            "Anyone may register an account",
        ),
        ({"redeem_policy": "any_user"}, "up to 50000 codes may be live"),
    ],
)
def test_what_is_risky_is_told_with_what_to_do(changed: dict[str, object], expected: str) -> None:
    found = check_configuration(replace(GOOD, **changed), {})  # type: ignore[arg-type]
    [finding] = [finding for finding in found if re.search(expected, finding.problem)]
    assert finding.remedy


def test_secrets_in_files_that_others_can_read_are_told(tmp_path: Path) -> None:
    settings, credentials = tmp_path / "settings", tmp_path / "credentials"
    settings.write_text(f"PAIRING_JWT_KEYS=k1:{'s' * 32}\n")
    credentials.mkdir()
    urls = [credentials / name for name in ("database-url", "migrate-database-url", "audit-seal-key")]
    for each in urls:
        each.write_text("a secret")
        each.chmod(0o600)
    environ = {"PAIRING_SETTINGS_FILE": str(settings), "CREDENTIALS_DIRECTORY": str(credentials)}
    for path, mode in ((settings, 0o644), *((each, 0o640) for each in urls)):
        path.chmod(mode)
        assert any(str(path) in f.problem for f in check_configuration(GOOD, environ))
        path.chmod(0o600)
    assert not any(str(tmp_path) in f.problem for f in check_configuration(GOOD, environ))


def test_a_secret_is_weak_by_what_is_in_it_and_not_by_its_length() -> None:
    assert not any(is_weak(generate_key()) for _ in range(200))
    for text in ("a" * 64, "abcabcabcabcabcabcabcabcabcabcabc", "my-super-secret-key-for-the-pairing-server"):
        assert is_weak(SigningKey("k", text.encode()))


async def test_a_database_that_is_as_it_should_be_has_no_findings(database_url: str) -> None:
    assert await check_database(replace(GOOD, database_url=database_url)) == []


async def test_seals_of_keys_that_are_not_trusted_are_told(database_url: str) -> None:
    own, other = SealKey.generate()[0], SealKey.generate()[0]
    await execute_within(
        database_url,
        *(
            f"""INSERT INTO audit_seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node,
            public_key, signature)
            SELECT {number}, 1, '0', '1', 0, '[]', '', '', now(), 'n', decode('{key.public.hex()}', 'hex'), ''"""
            for number, key in enumerate((other, other, own), 1)
        ),
    )
    config = replace(GOOD, database_url=database_url, audit_seal_key=own)
    [finding] = await check_database(config)
    assert (
        f"seals up to 2 of a key that this server does not trust: {format_key(other.public)}"
        in finding.problem
    )
    assert "PAIRING_AUDIT_TRUSTED_KEYS" in finding.remedy
    for last, known in ((None, True), (2, True), (1, False)):
        trusted = replace(config, audit_trusted_keys=(TrustedKey(other.public, last),))
        assert (await check_database(trusted) == []) is known


async def test_an_old_an_unknown_and_an_absent_database_are_found(empty_database: str) -> None:
    [old] = await check_database(replace(GOOD, database_url=empty_database))
    assert (f"needs {migrations.head()}" in old.problem, old.remedy) == (True, "pairing-server migrate")
    [absent] = await check_database(replace(GOOD, database_url=NO_DATABASE))
    assert "cannot be used" in absent.problem and "secret" not in absent.problem + absent.remedy


async def test_a_database_that_takes_no_writes_is_found_with_the_reason_that_readyz_has(
    database_url: str,
) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    await execute_within(database_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    [finding] = await check_database(replace(GOOD, database_url=database_url))
    assert "(database_read_only)" in finding.problem
    assert "PAIRING_DATABASE_URL" in finding.remedy and "standby" in finding.remedy


def test_a_newer_database_is_found(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    done = Operator(database_url, tmp_path, PUBLIC_URL="http://127.0.0.1:1").run("doctor")
    assert done.status == 1, "nobody listens there"
    assert f"revision 9999, which is newer than this release knows ({migrations.head()})" in done.out


def test_the_doctor_tells_how_the_server_sees_it_and_what_is_risky(database_url: str, tmp_path: Path) -> None:
    operator = Operator(database_url, tmp_path, PORT="0", REGISTRATION="open")
    with serving(operator.environ, tmp_path) as server:
        environ = {"PUBLIC_URL": server.url, "MAX_LIVE_CODES": "5000", "REDEEM_POLICY": "any_user"}
        done = Operator(database_url, tmp_path, **environ).run("doctor")
        assert done.status == 0, done.text
        assert "Settings: " in done.out and "up to 5000 codes may be live" in done.out
        assert "The server saw this client as 127.0.0.1: as this machine's" in done.out
        assert "to do     Lower PAIRING_MAX_LIVE_CODES" in done.out
        # Another server's settings are not ours to judge.
        assert "Settings:" not in operator.run("doctor", "--url", server.url).out


async def test_pages_of_a_name_that_the_server_does_not_know_are_told(site: Site) -> None:
    """127.1 is such a name, which every machine resolves."""
    for host, count in (("127.1", 1), ("127.0.0.1", 0)):
        with PairingClient(f"http://{host}:{site.port}", "desktop") as client:
            client.access_token = (await site.account()).token
            await site.ws_token(Account("", "", client.access_token), "desktop")
            found = await check_connection(client)
        pages = [finding for finding in found if "ORIGIN_NOT_ALLOWED" in finding.problem]
        assert len(pages) == count
        assert all(f"PAIRING_PUBLIC_URL=http://127.1:{site.port}" in finding.remedy for finding in pages)
