"""audit key and audit verify, as an operator runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing_server.audit.seals import SealKey, format_key
from pairing_server.db import roles
from tests.cli.commands import Operator
from tests.conftest import execute

KEY, SECRET = SealKey.generate()


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path, AUDIT_SEAL_KEY=SECRET)


def test_the_public_key_is_that_of_the_key_in_use(operator: Operator, tmp_path: Path) -> None:
    assert operator.says("audit", "key") == f"{format_key(KEY.public)}\n"
    bare = Operator("postgresql://nobody@127.0.0.1:1/none", tmp_path)
    made = bare.says("audit", "key")
    assert made.startswith("ed25519:")
    assert made == bare.says("audit", "key")
    assert (tmp_path / "data" / "audit-seal-key").stat().st_mode & 0o777 == 0o600


def test_a_seal_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    bare = Operator("postgresql://nobody@127.0.0.1:1/none", tmp_path)
    bare.says("audit", "key")
    (tmp_path / "data" / "audit-seal-key").chmod(0o644)
    assert "chmod 600" in bare.refuses("audit", "key")


def test_verifying_a_log_without_seals_says_so(operator: Operator) -> None:
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    told = operator.says("audit", "verify")
    assert "0 seals over 0 rows are right." in told
    assert "1 rows are newer than the last seal." in told


def test_an_export_needs_the_public_key_and_the_form_of_one(operator: Operator, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("{}\n")
    assert "--key" in operator.refuses("audit", "verify", "--from-export", str(file), status=2)
    told = operator.refuses("audit", "verify", "--from-export", str(file), "--key", SECRET)
    assert "the first line is not that of an export" in told
    told = operator.refuses("audit", "verify", "--from-export", str(file), "--key", "x", status=2)
    assert "ed25519:" in told


def test_rebasing_begins_an_epoch_and_needs_the_owner(
    operator: Operator, database_url: str, tmp_path: Path
) -> None:
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    assert "epoch 2" in operator.says("audit", "rebase")
    assert "epoch 3" in operator.says("audit", "rebase")
    told = operator.says("audit", "verify")
    assert "2 seals over" in told
    running = Operator(roles.make_running(database_url), tmp_path, AUDIT_SEAL_KEY=SECRET)
    assert "PAIRING_MIGRATE_DATABASE_URL" in running.refuses("audit", "rebase")


def test_a_seal_that_is_none_of_ours_is_named_and_the_command_fails(
    operator: Operator, database_url: str
) -> None:
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    execute(
        database_url,
        """INSERT INTO audit_seals (seal_no, epoch, from_xid, to_xid, n_rows, parts, digest, previous, sealed_at, node,
            public_key, signature)
        SELECT 1, 1, '0', pg_current_xact_id(), 0, '[]', '', decode(repeat('00', 32), 'hex'), now(), 'n',
            decode(repeat('00', 32), 'hex'), ''""",
    )
    done = operator.run("audit", "verify")
    assert done.status == 1
    assert "Error: Seal 1 is signed by a key that is not trusted" in done.err
    assert "account.created" in done.err


def test_the_rows_that_were_looked_at_are_all_accounted_for(operator: Operator, database_url: str) -> None:
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    operator.says("audit", "rebase")
    told = operator.says("audit", "verify")
    assert "1 seals over 1 rows are right." in told
    assert "0 seals over 0 rows are excused." in told
    assert "2 rows are newer than the last seal.\nThe oldest of them was recorded at 20" in told
    assert "0 rows are reported." in told
    execute(
        database_url,
        """INSERT INTO audit_events (recorded_at, occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind)
        SELECT now() - interval '3 days', now(), gen_random_uuid(), 'auth.login', 6, 'success', 'n', '1', 'user'""",
    )
    done = operator.run("audit", "verify")
    assert done.status == 1
    assert "3 rows are newer than the last seal." in done.out
    assert "1 rows are reported." in done.out
    assert (
        "auth.login  success: in no seal yet, is older than rows of earlier transactions: it was backdated"
        in done.err
    )


def test_servers_with_keys_of_their_own_trust_each_other_by_a_list(database_url: str, tmp_path: Path) -> None:
    other, secret = SealKey.generate()
    listed = f"{format_key(KEY.public)}, {format_key(other.public)}"

    def node(key: str, trusted: str = "") -> Operator:
        return Operator(database_url, tmp_path, AUDIT_SEAL_KEY=key, AUDIT_TRUSTED_KEYS=trusted)

    node(SECRET).says("user", "add", "alice", stdin="a long enough password\n")
    node(SECRET).says("audit", "rebase")
    node(secret).says("audit", "rebase")
    untrusted = f"Seal 2 is signed by a key that is not trusted: {format_key(other.public)}"
    assert untrusted in node(SECRET).run("audit", "verify").err
    for key in (SECRET, secret):
        assert "2 seals over" in node(key, listed).says("audit", "verify")
    assert "2 seals over" in node(SECRET).says("audit", "verify", "--key", f"{format_key(other.public)}@2")
    # A key that was replaced is trusted for the seals that it had made by then; the server's own key, too.
    assert "2 seals over" in node(secret, f"{format_key(KEY.public)}@1").says("audit", "verify")
    for own, trusted, last in (
        (SECRET, f"{format_key(other.public)}@1", 1),
        (secret, f"{format_key(KEY.public)}@0", 0),
        (SECRET, f"{listed}, {format_key(KEY.public)}@0", 0),
    ):
        done = node(own, trusted).run("audit", "verify")
        assert done.status == 1
        assert f"a key that is trusted up to seal {last} only" in done.err
