"""The inventory of the audit log, docs/audit.md and the code agree: nothing is recorded that is not described, and
nothing is described that is not recorded and tested."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pairing_server.audit.events import EVENTS, row
from pairing_server.request_context import system
from tests.audit.logs import audit_log

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
THIS = Path(__file__).name
NOW = datetime(2026, 3, 1, tzinfo=UTC)

# Made up from parts where they are recorded.
FAMILIES = {"db.down": 'f"db.', "db.up": 'f"db.', "db.failover": 'f"db.'}


def text_of(folder: str, *suffixes: str) -> str:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    return "\n".join(
        path.read_text(encoding="utf-8") for path in files if path.name not in ("audit_events.py", THIS)
    )


SOURCE = text_of("pairing_server", ".py") + text_of("migrations", ".py")
TESTS = text_of("tests", ".py")


def test_the_document_has_the_inventory_line_for_line() -> None:
    listed = [line for line in DOCUMENT.splitlines() if re.match(r"\| `[a-z]+\.", line)]
    assert listed == [row(name) for name in EVENTS], "put into docs/audit.md what is on the right"


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_the_inventory_is_recorded_somewhere(name: str) -> None:
    assert f'"{name}"' in SOURCE or f"'{name}'" in SOURCE or FAMILIES.get(name, "\0") in SOURCE


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_of_the_inventory_is_looked_for_by_a_test(name: str) -> None:
    assert f'"{name}"' in TESTS or f"'{name}'" in TESTS


@pytest.mark.parametrize("name", EVENTS)
def test_names_and_severities_have_their_form(name: str) -> None:
    spec = EVENTS[name]
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    assert 0 <= spec.bad <= spec.good <= 7
    assert spec.when.endswith(".")


def test_an_event_or_attribute_outside_the_inventory_cannot_be_recorded() -> None:
    audit = audit_log()
    with pytest.raises(ValueError, match=r"auth.nonsense is not in the inventory"):
        audit.event("auth.nonsense", "success", system(NOW))
    with pytest.raises(ValueError, match=r"auth.login has no attributes \['password'\]"):
        audit.event("auth.login", "failure", system(NOW), target="alice", password="secret")
