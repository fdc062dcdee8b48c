"""Users, sessions, pairings, attempts and the append-only audit log."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = """
CREATE TABLE users (
    id uuid CONSTRAINT pk_users PRIMARY KEY,
    username text NOT NULL,
    username_key text NOT NULL CONSTRAINT uq_users_username_key UNIQUE,
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'user' CONSTRAINT ck_users_role CHECK (role IN ('user', 'auditor', 'admin')),
    created_at timestamptz NOT NULL,
    disabled_at timestamptz
);
COMMENT ON COLUMN users.username_key IS 'the name as compared: NFKC, case-folded';
COMMENT ON COLUMN users.password_hash IS 'argon2id, parameters included';

CREATE TABLE sessions (
    session_id text CONSTRAINT pk_sessions PRIMARY KEY,
    subject text NOT NULL,
    device_type text NOT NULL,
    bound_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
);
COMMENT ON COLUMN sessions.subject IS 'whose token used this session id first';
CREATE INDEX ix_sessions_seen_at ON sessions (seen_at);

CREATE TABLE pairings (
    id uuid CONSTRAINT pk_pairings PRIMARY KEY,
    code_mac bytea CONSTRAINT uq_pairings_code_mac UNIQUE,
    state text NOT NULL CONSTRAINT ck_pairings_state CHECK
        (state IN ('pending', 'redeemed', 'active', 'waiting', 'closed', 'expired', 'superseded')),
    desktop_session text NOT NULL,
    desktop_user text,
    mobile_session text,
    mobile_user text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    redeemed_at timestamptz,
    activated_at timestamptz,
    seen_at timestamptz,
    ended_at timestamptz,
    end_reason text
);
COMMENT ON COLUMN pairings.code_mac IS 'HMAC of the code; null once the name is released';
COMMENT ON COLUMN pairings.desktop_user IS 'null: a guest, until the first join claims the seat';
CREATE INDEX ix_pairings_desktop_session ON pairings (desktop_session) WHERE ended_at IS NULL;
CREATE INDEX ix_pairings_desktop_user ON pairings (desktop_user) WHERE ended_at IS NULL;
CREATE INDEX ix_pairings_mobile_user ON pairings (mobile_user) WHERE ended_at IS NULL;
CREATE INDEX ix_pairings_expires_at ON pairings (expires_at) WHERE state = 'pending';
CREATE INDEX ix_pairings_redeemed_at ON pairings (redeemed_at) WHERE state = 'redeemed';
CREATE INDEX ix_pairings_seen_at ON pairings (seen_at) WHERE state IN ('active', 'waiting');
CREATE INDEX ix_pairings_ended_at ON pairings (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE attempts (
    kind text NOT NULL,
    key text NOT NULL,
    times timestamptz[] NOT NULL,
    level smallint NOT NULL DEFAULT 0,
    locked_until timestamptz,
    touched_at timestamptz NOT NULL,
    CONSTRAINT pk_attempts PRIMARY KEY (kind, key)
);
COMMENT ON COLUMN attempts.key IS 'a subject, a username or an address, as the kind says';
COMMENT ON COLUMN attempts.times IS 'what counts, oldest first';
COMMENT ON COLUMN attempts.level IS 'how many locks in a row';
CREATE INDEX ix_attempts_touched_at ON attempts (touched_at);

CREATE TABLE audit_events (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    occurred_at timestamptz NOT NULL,
    event_id uuid NOT NULL,
    event text NOT NULL,
    severity smallint NOT NULL CONSTRAINT ck_audit_events_severity CHECK (severity BETWEEN 0 AND 7),
    outcome text NOT NULL CONSTRAINT ck_audit_events_outcome
        CHECK (outcome IN ('success', 'failure', 'denied', 'error')),
    reason text,
    node text NOT NULL,
    app_version text NOT NULL,
    actor_subject text,
    actor_kind text NOT NULL CONSTRAINT ck_audit_events_actor_kind
        CHECK (actor_kind IN ('user', 'device', 'admin', 'system', 'anonymous')),
    auth_method text,
    address inet,
    request_id uuid,
    connection_id uuid,
    pairing_id uuid,
    count integer NOT NULL DEFAULT 1,
    attrs jsonb NOT NULL DEFAULT '{}'::jsonb
        CONSTRAINT ck_audit_events_attrs_size CHECK (pg_column_size(attrs) <= 4096),
    CONSTRAINT pk_audit_events PRIMARY KEY (recorded_at, seq)
);
COMMENT ON COLUMN audit_events.severity IS 'syslog''s: 0 emergency to 7 debug';
COMMENT ON COLUMN audit_events.address IS 'the client''s, after the proxy rules';
CREATE INDEX ix_audit_events_event_recorded_at ON audit_events (event, recorded_at, seq);
CREATE INDEX ix_audit_events_actor_subject_recorded_at ON audit_events (actor_subject, recorded_at, seq);
CREATE INDEX ix_audit_events_address_recorded_at ON audit_events (address, recorded_at, seq);
CREATE INDEX ix_audit_events_pairing_id ON audit_events (pairing_id, recorded_at, seq);

CREATE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_events_no_rewrite BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_events_append_only();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only();
"""

DOWN = """
DROP TABLE audit_events;
DROP FUNCTION audit_events_append_only();
DROP TABLE attempts;
DROP TABLE pairings;
DROP TABLE sessions;
DROP TABLE users;
"""


def _run(script: str) -> None:
    """asyncpg prepares each statement, so they go one at a time; `$$` bodies stay whole."""
    statement: list[str] = []
    quoted = False
    for line in script.strip().splitlines():
        statement.append(line)
        quoted ^= line.count("$$") % 2 == 1
        if line.rstrip().endswith(";") and not quoted:
            op.execute("\n".join(statement).rstrip().removesuffix(";"))
            statement = []


def upgrade() -> None:
    _run(UP)


def downgrade() -> None:
    _run(DOWN)
