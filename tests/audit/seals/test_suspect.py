"""The suspect owns the tables: whatever the owner does to them, `audit verify` does not call it right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy.exc import DBAPIError

from pairing_server.audit.queue import EventQueue
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import Report
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.sealer import Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import system
from tests.audit.sealing import KEY, SealedLog, record, sealed, triggers_off, verify
from tests.conftest import as_running

_COLUMNS = (
    "occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind, actor_subject, attrs"
)


def login(given: str = "", values: str = "") -> str:
    """The statement of an owner who adds a login, with columns that only the database fills."""
    return f"""INSERT INTO audit_events ({given}{_COLUMNS})
        SELECT {values}now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user', 'mallory', '{{}}'"""


def retention(ends: str, rows: str, last_seal: str = "2", recorded_at: str = "now()") -> str:
    return f"""INSERT INTO audit_events (recorded_at, {_COLUMNS})
        SELECT {recorded_at}, now(), gen_random_uuid(), 'audit.retention', 5, 'success', 'n', '1', 'system', NULL,
            jsonb_build_object('partition', 'audit_events_old', 'ends', to_char(CAST({ends} AS timestamptz), 'YYYYMM'),
                'rows', {rows}, 'last_seal', {last_seal})"""


_NEXT_MONTH = "date_trunc('month', now()) + interval '1 month'"
_OLD = "date_trunc('month', now()) - interval '15 months'"


class Act(NamedTuple):
    """What the owner does, and a part of what the verification says of it once the server has sealed again."""

    statements: tuple[str, ...]
    said: str


ACTS = {
    "all rows deleted, and one says that they were dropped": Act(
        (
            """CREATE OR REPLACE FUNCTION audit_partitions() RETURNS TABLE (name text, begins timestamptz, ends timestamptz)
            LANGUAGE sql AS $$ SELECT 'x', date_trunc('month', now()) + interval '1 month', 'infinity'::timestamptz $$""",
            "DELETE FROM audit_events",
            retention(_NEXT_MONTH, "(SELECT sum(n_rows) FROM audit_seals)"),
        ),
        "these rows were not yet 30 days old",
    ),
    "a retention row of the future": Act(
        (
            f"""DO $$ BEGIN EXECUTE format('CREATE TABLE later PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)',
                {_NEXT_MONTH} + interval '2 years', {_NEXT_MONTH} + interval '3 years'); END $$""",
            "DELETE FROM audit_events",
            retention(
                _NEXT_MONTH,
                "(SELECT sum(n_rows) FROM audit_seals)",
                recorded_at="now() + interval '26 months'",
            ),
        ),
        "these rows were not yet 30 days old",
    ),
    "a backdated login": Act(
        (login("recorded_at, ", "now() - interval '2 days', "),),
        "in seal 3, is older than rows of earlier transactions: it was backdated",
    ),
    "a login by a clock that is put back": Act(
        (
            "ALTER TABLE audit_events ALTER COLUMN recorded_at SET DEFAULT clock_timestamp() - interval '1 day'",
            login(),
        ),
        "audit_events.recorded_at is filled with (clock_timestamp() - '1 day'::interval), not with clock_timestamp()",
    ),
    "a login of tomorrow": Act(
        (login("recorded_at, ", "now() + interval '1 day', "),),
        "in seal 3, is newer than its seal, or than now",
    ),
    "a login before all time": Act((login("recorded_at, ", "'-infinity', "),), "it was backdated"),
    "a login before Christ": Act((login("recorded_at, ", "'0044-03-15 BC', "),), "it was backdated"),
    "a login of an epoch to come": Act(
        (login("epoch, ", "99, "),), "is of epoch 99, which no seal will cover"
    ),
    "a login of the last epoch that there can be": Act(
        (login("epoch, xid, ", "2147483647, '18446744073709551615', "),), "is of epoch 2147483647"
    ),
    "a login of a negative epoch": Act((login("epoch, ", "-5, "),), "Seal 1 had 3 rows"),
    "a login of the first epoch that there can be": Act(
        (login("epoch, xid, seq, ", "-2147483648, '0', -9223372036854775808, "),), "Seal 1 had 3 rows"
    ),
    "a login of a transaction to come": Act(
        (login("xid, ", "'999999999999', "),),
        "is of transaction 999999999999, which has not been assigned yet",
    ),
    "a login with the number of another": Act(
        (login("seq, xid, ", "(SELECT min(seq) FROM audit_events), (SELECT min(xid) FROM audit_events), "),),
        "Seal 1 had 3 rows",
    ),
    "another epoch without a rebase": Act(
        ("ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT 99",),
        "audit_events.epoch is filled with 99, and the seals go on in epoch 1",
    ),
    "an epoch that is no number": Act(
        ("ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT 1 + 0 * pg_backend_pid()",),
        "audit_events.epoch is filled with None, and the seals go on in epoch 1",
    ),
    "seals deleted, so that the server makes others": Act(
        (
            "DELETE FROM audit_events WHERE actor_subject = 'bob-2'",
            "DELETE FROM audit_seals WHERE seal_no = 2",
        ),
        "Seal 2 is another one than was copied outside",
    ),
    "all seals deleted, so that the server makes others": Act(
        ("DELETE FROM audit_events WHERE actor_subject = 'bob-2'", "DELETE FROM audit_seals"),
        "Seal 2 is missing: a copy of it exists",
    ),
    "a seal whose parts are none": Act(
        ("UPDATE audit_seals SET parts = '[7]' WHERE seal_no = 1",), "Seal 1 has been changed"
    ),
    "a seal below the first": Act(
        (
            """INSERT INTO audit_seals SELECT -4, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node,
            public_key, signature FROM audit_seals WHERE seal_no = 1""",
        ),
        "Seal -4 comes twice",
    ),
    "a trigger that drops what mallory does": Act(
        (
            "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            """CREATE TRIGGER audit_events_no_rewrite_2 BEFORE INSERT ON audit_events FOR EACH ROW
            WHEN (NEW.actor_subject = 'mallory') EXECUTE FUNCTION hide()""",
        ),
        "audit_events has the trigger audit_events_no_rewrite_2, which can drop or change rows",
    ),
    "a trigger in place of the guard": Act(
        (
            "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "DROP TRIGGER audit_events_no_rewrite ON audit_events",
            "CREATE TRIGGER audit_events_no_rewrite BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION hide()",
        ),
        "audit_events has the trigger audit_events_no_rewrite, which can drop or change rows",
    ),
    "the guard switched off": Act(
        ("ALTER TABLE audit_events DISABLE TRIGGER audit_events_no_rewrite",),
        "audit_events: the trigger audit_events_no_rewrite, which refuses changes, is switched off",
    ),
    "the guard of the seals gone": Act(
        ("DROP TRIGGER audit_seals_no_rewrite ON audit_seals",),
        "audit_seals: the trigger audit_seals_no_rewrite, which refuses changes, is missing",
    ),
    "a guard that lets everything pass": Act(
        (
            """CREATE OR REPLACE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RETURN OLD; END $$""",
        ),
        "the function audit_events_append_only, which refuses changes, is not that of the migrations",
    ),
    "a rule that drops rows": Act(
        ("CREATE RULE hide AS ON INSERT TO audit_seals DO INSTEAD NOTHING",),
        "audit_seals has a rule, which can drop or change rows",
    ),
    "rows hidden by row-level security": Act(
        (
            "ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY hide ON audit_events USING (actor_subject IS DISTINCT FROM 'bob-2') WITH CHECK (true)",
        ),
        "audit_events has row-level security, which can hide rows",
    ),
    "a partition that is a view of other rows": Act(
        (
            "CREATE SCHEMA evil",
            "GRANT USAGE ON SCHEMA evil TO pairing",
            "CREATE VIEW evil.audit_events AS SELECT * FROM public.audit_events",
            "GRANT ALL ON evil.audit_events TO pairing",
            "CREATE VIEW evil.audit_seals AS SELECT * FROM public.audit_seals",
            "GRANT ALL ON evil.audit_seals TO pairing",
            """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = evil, public', current_database()); END $$""",
        ),
        "audit_events is not an ordinary table of the log",
    ),
    # What was thought of after all of the above were reported.
    "a guard that never applies": Act(
        (
            "DROP TRIGGER audit_seals_no_rewrite ON audit_seals",
            """CREATE TRIGGER audit_seals_no_rewrite BEFORE UPDATE OR DELETE ON audit_seals FOR EACH ROW WHEN (false)
            EXECUTE FUNCTION audit_events_append_only()""",
        ),
        "audit_seals: the trigger audit_seals_no_rewrite, which refuses changes, does so in some cases only",
    ),
    "a guard against one column's change": Act(
        (
            "DROP TRIGGER audit_events_no_rewrite ON audit_events",
            """CREATE TRIGGER audit_events_no_rewrite BEFORE UPDATE OF count OR DELETE ON audit_events FOR EACH ROW
            EXECUTE FUNCTION audit_events_append_only()""",
        ),
        "audit_events: the trigger audit_events_no_rewrite, which refuses changes, does so in some cases only",
    ),
    "a constraint that refuses mallory": Act(
        ("ALTER TABLE audit_events ADD CONSTRAINT hide CHECK (actor_subject IS DISTINCT FROM 'mallory')",),
        "audit_events has the constraint hide, which can refuse rows",
    ),
    "a constraint that refuses what comes twice": Act(
        ("ALTER TABLE audit_events ADD CONSTRAINT hide UNIQUE (recorded_at, seq, actor_subject)",),
        "audit_events has the constraint hide, which can refuse rows",
    ),
    "seals of the same number": Act(
        (
            "ALTER TABLE audit_seals DROP CONSTRAINT pk_audit_seals",
            "INSERT INTO audit_seals SELECT * FROM audit_seals WHERE seal_no = 1",
        ),
        "audit_seals has no primary key",
    ),
    "seals in another table": Act(
        ("CREATE TABLE more_seals () INHERITS (audit_seals)",),
        "more_seals is not an ordinary table of the log",
    ),
    "seals seen through a view": Act(
        (
            "ALTER TABLE audit_seals RENAME TO seals",
            "CREATE VIEW audit_seals AS SELECT * FROM seals",
            "GRANT ALL ON audit_seals TO pairing",
        ),
        "audit_seals is not an ordinary table of the log",
    ),
    "functions that stand in for PostgreSQL's": Act(
        (
            "CREATE SCHEMA evil",
            "GRANT USAGE ON SCHEMA evil TO pairing",
            """CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS
            $$ SELECT decode(repeat('00', 32), 'hex') $$""",
            "CREATE VIEW evil.pg_trigger AS SELECT * FROM pg_catalog.pg_trigger WHERE false",
            "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "CREATE TRIGGER hide BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION hide()",
            """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = evil, public, pg_catalog', current_database());
            END $$""",
        ),
        "audit_events_first has the trigger hide, which can drop or change rows\n"
        "search_path is evil, public, pg_catalog: functions can stand in for PostgreSQL's",
    ),
    "a trigger on one partition": Act(
        (
            "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            """CREATE TRIGGER hide BEFORE INSERT ON audit_events_first FOR EACH ROW
            WHEN (NEW.actor_subject = 'mallory') EXECUTE FUNCTION hide()""",
        ),
        "audit_events_first has the trigger hide, which can drop or change rows",
    ),
    "a partition that a crash empties": Act(
        ("ALTER TABLE audit_events_first SET UNLOGGED",),
        "audit_events_first is not an ordinary table of the log",
    ),
    "a column of a type that reads otherwise": Act(
        (
            "CREATE DOMAIN said AS text",
            "DROP INDEX ix_audit_events_actor_subject_recorded_at",
            "ALTER TABLE audit_events ALTER COLUMN reason TYPE said",
        ),
        "audit_events.reason has a type that is not PostgreSQL's",
    ),
    "rows that the server may not read": Act(
        ("REVOKE SELECT ON audit_events FROM pairing",), "the log cannot be read: "
    ),
    "a seal of the owner's, upon which the server builds": Act(
        (
            login(),
            """INSERT INTO audit_seals SELECT 3, 1, to_xid, pg_snapshot_xmax(pg_current_snapshot()), 0, '[]', digest, digest,
            now(), 'n', decode(repeat('77', 32), 'hex'), '' FROM audit_seals WHERE seal_no = 2""",
        ),
        "Seal 3 is signed by a key that is not trusted",
    ),
    "a partition with another in its place": Act(
        (
            "ALTER TABLE audit_events DETACH PARTITION audit_events_first",
            "CREATE TABLE audit_events_other (LIKE audit_events_first INCLUDING ALL)",
            f"""DO $$ BEGIN EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION audit_events_other
                FOR VALUES FROM (MINVALUE) TO (%L)', {_NEXT_MONTH}); END $$""",
        ),
        "no sealed event audit.retention says",
    ),
}


@asynccontextmanager
async def server(url: str, folder: Path) -> AsyncIterator[SealedLog]:
    """What of a server records, seals and verifies, by the role that runs it, with connections of its own."""
    database = Database(as_running(url))
    audit = AuditLog("node", "1", EventQueue(database, database))
    sealer = Sealer(database, audit, KEY, SealMemory(folder))
    try:
        yield SealedLog(database, database, audit, sealer, Verifier(database, audit, sealer))
    finally:
        await database.close()


async def attacked(url: str, statements: tuple[str, ...], folder: Path) -> Report:
    """Two seals, what the owner does then, what the server records and seals after it; and the verification of all."""
    async with server(url, folder) as before:
        await sealed(before, 2)
    async with triggers_off(url) as owner:
        for statement in statements:
            await owner.execute(statement)
    async with server(url, folder) as after:
        await record(after, "carol")
        # The scheduler logs what fails, and tries again.
        with suppress(DBAPIError):
            await after.sealer.seal(system(utcnow()))
        return await verify(after)


def said(report: Report) -> str:
    fault = f"Seal {report.fault.seal} {report.fault.what}" if report.fault else ""
    return "\n".join([fault, *report.strays, *report.irregularities])


@pytest.mark.parametrize("act", ACTS)
async def test_verification_reports_what_the_owner_of_the_tables_does(
    database_url: str, tmp_path: Path, act: str
) -> None:
    statements, expected = ACTS[act]
    report = await attacked(database_url, statements, tmp_path)
    assert not report.right
    assert expected in said(report), said(report)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (login("recorded_at, ", "now() - interval '2 days', "), "audit rows sealed with an impossible time"),
        (login("recorded_at, ", "now() + interval '2 days', "), "audit rows sealed with an impossible time"),
        (login("epoch, ", "99, "), "audit rows of an epoch that no seal covers"),
        (login("epoch, ", "-5, "), "audit rows of an epoch that no seal covers"),
        (
            "ALTER TABLE audit_events ALTER COLUMN epoch SET DEFAULT 99",
            "audit epoch changed without a rebase",
        ),
        ("DELETE FROM audit_seals WHERE seal_no = 2", "audit seal gone from the database"),
        (login(), None),
    ],
)
async def test_the_server_logs_what_it_finds_when_it_seals(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, statement: str, message: str | None
) -> None:
    await attacked(database_url, (statement,), tmp_path)
    logged = {record.message for record in caplog.records if record.levelname == "ERROR"}
    assert message in logged if message is not None else not logged
