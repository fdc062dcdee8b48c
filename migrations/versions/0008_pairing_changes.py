"""What has happened to pairings, for the servers that did not do it themselves."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
works_with = "0001"

# A trigger notes it, so that what the previous release or a person ends is noted as well. It runs with its owner's
# rights: the role that runs the previous release has none on the new table.
UP = (
    """
    CREATE TABLE pairing_changes (
        xid xid8 NOT NULL,
        pairing_id uuid NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_pairing_changes PRIMARY KEY (xid, pairing_id)
    )
    """,
    "COMMENT ON COLUMN pairing_changes.xid IS 'the transaction that has redeemed, ended or deleted it'",
    "CREATE INDEX ix_pairing_changes_recorded_at ON pairing_changes (recorded_at)",
    """
    CREATE FUNCTION pairings_note_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO pairing_changes (xid, pairing_id) VALUES (pg_current_xact_id(), OLD.id)
            ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    DO $$
    BEGIN
        EXECUTE format('ALTER FUNCTION pairings_note_change() SET search_path = %I, pg_temp', current_schema());
    END $$
    """,
    """
    CREATE TRIGGER pairings_changed AFTER UPDATE OF ended_at, redeemed_at ON pairings FOR EACH ROW
        WHEN (OLD.ended_at IS DISTINCT FROM NEW.ended_at OR OLD.redeemed_at IS DISTINCT FROM NEW.redeemed_at)
        EXECUTE FUNCTION pairings_note_change()
    """,
    """
    CREATE TRIGGER pairings_deleted AFTER DELETE ON pairings FOR EACH ROW
        WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION pairings_note_change()
    """,
)
DOWN = (
    "DROP TRIGGER pairings_deleted ON pairings",
    "DROP TRIGGER pairings_changed ON pairings",
    "DROP FUNCTION pairings_note_change()",
    "DROP TABLE pairing_changes",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
