"""The settings of a connection end up in the URLs, and those that contradict each other are refused."""

from __future__ import annotations

import pytest

from pairing_server.db.connection_parameters import read
from tests.config.given import SECRET, URL, configuration, faults

OWN, OWNER = "postgresql://pairing@db/name", "postgresql://owner@db/name"


def test_both_roles_have_the_time_and_the_source_of_the_password() -> None:
    found = configuration(
        {
            "PAIRING_DATABASE_URL": OWN,
            "PAIRING_MIGRATE_DATABASE_URL": OWNER,
            "PAIRING_DATABASE_CONNECT_TIMEOUT": "15",
            "PAIRING_DATABASE_PASSWORD_COMMAND": "print-token --for $PGUSER & 100%",
        }
    )
    for url in (found.database_url, found.migrate_database_url):
        values = read(url or "", {}).values
        assert values["connect_timeout"] == "15"
        assert values["password_command"] == "print-token --for $PGUSER & 100%"


def test_an_owner_with_a_password_of_its_own_keeps_it() -> None:
    found = configuration(
        {
            "PAIRING_DATABASE_URL": OWN,
            "PAIRING_MIGRATE_DATABASE_URL": URL,
            "PAIRING_DATABASE_PASSWORD_FILE": "/run/password",
        }
    )
    assert read(found.database_url or "", {}).values["password_file"] == "/run/password"
    assert found.migrate_database_url == URL


def test_what_the_url_says_itself_wins() -> None:
    found = configuration(
        {"PAIRING_DATABASE_URL": f"{OWN}?connect_timeout=2", "PAIRING_DATABASE_CONNECT_TIMEOUT": "15"}
    )
    assert read(found.database_url or "", {}).values["connect_timeout"] == "2"


def test_the_embedded_database_needs_none_of_it() -> None:
    assert configuration({"PAIRING_DATABASE_CONNECT_TIMEOUT": "15"}).database_url is None


@pytest.mark.parametrize(
    ("url", "given", "named"),
    [
        (URL, ("FILE",), "PAIRING_DATABASE_PASSWORD_FILE: PAIRING_DATABASE_URL has a password"),
        (URL, ("COMMAND",), "PAIRING_DATABASE_PASSWORD_COMMAND: PAIRING_DATABASE_URL has a password"),
        (f"{OWN}?passfile=/p", ("FILE",), "PAIRING_DATABASE_PASSWORD_FILE: PAIRING_DATABASE_URL has"),
        (
            OWN,
            ("FILE", "COMMAND"),
            "PAIRING_DATABASE_PASSWORD_COMMAND: PAIRING_DATABASE_PASSWORD_FILE is set",
        ),
    ],
)
def test_two_passwords_are_refused(url: str, given: tuple[str, ...], named: str) -> None:
    [fault] = faults(
        {"PAIRING_DATABASE_URL": url, **{f"PAIRING_DATABASE_PASSWORD_{name}": "/x" for name in given}}
    )
    assert fault.startswith(named) and SECRET not in fault
