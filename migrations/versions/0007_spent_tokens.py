"""Ws tokens that have been used, where each is good for one connection only."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The previous release takes each token again until it expires.
UP = (
    """
    CREATE TABLE spent_tokens (
        token_id text CONSTRAINT pk_spent_tokens PRIMARY KEY,
        spent_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX ix_spent_tokens_expires_at ON spent_tokens (expires_at)",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE spent_tokens")
