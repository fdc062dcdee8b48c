"""Phones that wait for their desktop to confirm them."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The previous release neither asks nor is in its way: what it deletes takes the request along.
UP = (
    """
    CREATE TABLE confirmations (
        pairing_id uuid CONSTRAINT pk_confirmations PRIMARY KEY
            CONSTRAINT fk_confirmations_pairing_id REFERENCES pairings (id) ON DELETE CASCADE,
        mobile_session text NOT NULL,
        mobile_user text,
        device text NOT NULL,
        address text,
        asked_at timestamptz NOT NULL,
        confirmed_at timestamptz
    )
    """,
    "COMMENT ON COLUMN confirmations.device IS 'what the phone calls itself, for people'",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE confirmations")
