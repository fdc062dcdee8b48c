"""Whose login a revocation has ended, so that a repeated request gets the same answer."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
works_with = "0001"

# The previous release does not name it: what it has revoked is answered as unknown the second time, as before.
UP = (
    "ALTER TABLE revocations ADD COLUMN subject text",
    "COMMENT ON COLUMN revocations.subject IS 'whose login it was'",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE revocations DROP COLUMN subject")
