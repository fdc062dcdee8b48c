"""Logins, and what is revoked of them."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The previous release knows neither: what is revoked it goes on taking until each token's own end.
UP = (
    """
    CREATE TABLE logins (
        subject text NOT NULL,
        login_id text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL,
        address text,
        CONSTRAINT pk_logins PRIMARY KEY (subject, login_id)
    )
    """,
    "COMMENT ON COLUMN logins.address IS 'where it was last used from'",
    "CREATE INDEX ix_logins_login_id ON logins (login_id)",
    "CREATE INDEX ix_logins_expires_at ON logins (expires_at)",
    """
    CREATE TABLE revocations (
        kind text NOT NULL CONSTRAINT ck_revocations_kind CHECK (kind IN ('login', 'token', 'user')),
        issuer text NOT NULL,
        name text NOT NULL,
        revoked_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT pk_revocations PRIMARY KEY (kind, issuer, name)
    )
    """,
    "COMMENT ON COLUMN revocations.name IS 'a login''s id, a token''s id, or a subject, as the kind says'",
    "COMMENT ON COLUMN revocations.expires_at IS 'from then on no such token would be taken anyway'",
    "CREATE INDEX ix_revocations_recorded_at ON revocations (recorded_at)",
    "CREATE INDEX ix_revocations_expires_at ON revocations (expires_at)",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE revocations")
    op.execute("DROP TABLE logins")
