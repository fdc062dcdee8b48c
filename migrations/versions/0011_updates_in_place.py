"""What is noted all the time is written in place: no index to maintain, and room on its page."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
# Its statements are the same, and use another index.
works_with = "0001"

# PostgreSQL writes a new version of a row on the same page, without touching an index (HOT), only if no indexed column
# has changed and the page has room. `seen_at` of each live pairing is noted twice a minute, `touched_at` of a limit
# with each request. What looked them up looks at all live pairings twice a minute now, and at all limits once an hour.
UP = (
    "CREATE INDEX ix_pairings_activated_at ON pairings (activated_at) WHERE state IN ('active', 'waiting')",
    "DROP INDEX ix_pairings_seen_at",
    "DROP INDEX ix_attempts_touched_at",
    "ALTER TABLE pairings SET (fillfactor = 80)",
    "ALTER TABLE attempts SET (fillfactor = 80)",
)
DOWN = (
    "ALTER TABLE attempts RESET (fillfactor)",
    "ALTER TABLE pairings RESET (fillfactor)",
    "CREATE INDEX ix_attempts_touched_at ON attempts (touched_at)",
    "CREATE INDEX ix_pairings_seen_at ON pairings (seen_at) WHERE state IN ('active', 'waiting')",
    "DROP INDEX ix_pairings_activated_at",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWN:
        op.execute(statement)
