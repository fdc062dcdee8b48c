"""Which server has a pairing's channel, and which of its devices are connected there."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
works_with = "0001"

# The previous release notes no server, so `node` is null for its pairings. A channel that another server takes over is
# a change, too, so that the first one closes what is left of it.
UP = (
    """
    CREATE TABLE nodes (
        id uuid CONSTRAINT pk_nodes PRIMARY KEY,
        name text NOT NULL,
        beat_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "COMMENT ON COLUMN nodes.id IS 'drawn at each start'",
    "COMMENT ON COLUMN nodes.name IS 'host, port and folder: who has it takes the place of an earlier start'",
    """
    ALTER TABLE pairings
        ADD COLUMN node uuid,
        ADD COLUMN desktop_joined boolean NOT NULL DEFAULT false,
        ADD COLUMN mobile_joined boolean NOT NULL DEFAULT false
    """,
    "COMMENT ON COLUMN pairings.node IS 'the server that has its channel'",
    "COMMENT ON COLUMN pairings.desktop_joined IS 'whether the desktop is connected to that server'",
    "COMMENT ON COLUMN pairings.mobile_joined IS 'whether the mobile is connected to that server'",
    "DROP TRIGGER pairings_changed ON pairings",
    """
    CREATE TRIGGER pairings_changed AFTER UPDATE OF ended_at, redeemed_at, node ON pairings FOR EACH ROW
        WHEN (OLD.ended_at IS DISTINCT FROM NEW.ended_at OR OLD.redeemed_at IS DISTINCT FROM NEW.redeemed_at
            OR OLD.node IS NOT NULL AND OLD.node IS DISTINCT FROM NEW.node)
        EXECUTE FUNCTION pairings_note_change()
    """,
)
DOWN = (
    "DROP TRIGGER pairings_changed ON pairings",
    """
    CREATE TRIGGER pairings_changed AFTER UPDATE OF ended_at, redeemed_at ON pairings FOR EACH ROW
        WHEN (OLD.ended_at IS DISTINCT FROM NEW.ended_at OR OLD.redeemed_at IS DISTINCT FROM NEW.redeemed_at)
        EXECUTE FUNCTION pairings_note_change()
    """,
    "ALTER TABLE pairings DROP COLUMN node, DROP COLUMN desktop_joined, DROP COLUMN mobile_joined",
    "DROP TABLE nodes",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
