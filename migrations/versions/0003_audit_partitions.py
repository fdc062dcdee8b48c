"""The audit log in monthly partitions, ready to be sealed; the seals.

Existing rows stay where they are: their table becomes the first partition, which ends with the month of this
migration. Attaching it reads it once and builds the indexes that are new, under a lock.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = """
    recorded_at, seq, xid, occurred_at, event_id, event, severity, outcome, reason, node, app_version,
    actor_subject, actor_kind, auth_method, address, request_id, connection_id, pairing_id, count, attrs
"""

# What both forms of the table have.
CONTENT = """
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
"""

COMMENTS_AND_TRIGGERS = """
COMMENT ON COLUMN audit_events.severity IS 'syslog''s: 0 emergency to 7 debug';
COMMENT ON COLUMN audit_events.address IS 'the client''s, after the proxy rules';
CREATE TRIGGER audit_events_no_rewrite BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_events_append_only();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only();
"""

UP = f"""
DROP TRIGGER audit_events_no_rewrite ON audit_events;
DROP INDEX ix_audit_events_actor_subject_recorded_at;
DROP INDEX ix_audit_events_address_recorded_at;
DROP INDEX ix_audit_events_pairing_id;
CREATE SEQUENCE audit_events_number AS bigint;
SELECT setval('audit_events_number', coalesce((SELECT max(seq) FROM audit_events), 0) + 1, false);
ALTER TABLE audit_events ALTER COLUMN seq DROP IDENTITY;
ALTER TABLE audit_events ADD COLUMN epoch integer NOT NULL DEFAULT 1;
ALTER TABLE audit_events RENAME TO audit_events_first;
ALTER INDEX pk_audit_events RENAME TO pk_audit_events_first;
ALTER INDEX ix_audit_events_event_recorded_at RENAME TO ix_audit_events_first_event_recorded_at;

CREATE TABLE audit_events (
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq bigint NOT NULL DEFAULT nextval('audit_events_number'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    epoch integer NOT NULL DEFAULT 1,
    {CONTENT.strip()}
) PARTITION BY RANGE (recorded_at);
COMMENT ON COLUMN audit_events.epoch IS 'raised when transaction ids begin anew, after a logical restore';
CREATE INDEX ix_audit_events_epoch_xid ON audit_events (epoch, xid);
CREATE INDEX ix_audit_events_event_recorded_at ON audit_events (event, recorded_at, seq);
CREATE INDEX ix_audit_events_actor_subject_recorded_at ON audit_events (actor_subject, recorded_at, seq)
    WHERE actor_subject IS NOT NULL;
CREATE INDEX ix_audit_events_address_recorded_at ON audit_events (address, recorded_at, seq)
    WHERE address IS NOT NULL;
CREATE INDEX ix_audit_events_pairing_id ON audit_events (pairing_id) WHERE pairing_id IS NOT NULL;
CREATE INDEX ix_audit_events_connection_id ON audit_events (connection_id) WHERE connection_id IS NOT NULL;
CREATE INDEX ix_audit_events_outcome_recorded_at ON audit_events (outcome, recorded_at, seq)
    WHERE outcome <> 'success';
CREATE INDEX ix_audit_events_severity_recorded_at ON audit_events (severity, recorded_at, seq)
    WHERE severity < 6;

CREATE OR REPLACE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
{COMMENTS_AND_TRIGGERS.strip()}

DO $$
BEGIN
    EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION audit_events_first FOR VALUES FROM (MINVALUE) TO (%L)',
        date_trunc('month', clock_timestamp(), 'UTC') + interval '1 month');
END $$;

CREATE TABLE audit_seals (
    seal_no bigint CONSTRAINT pk_audit_seals PRIMARY KEY,
    epoch integer NOT NULL,
    from_xid xid8 NOT NULL,
    to_xid xid8 NOT NULL,
    n_rows bigint NOT NULL,
    parts jsonb NOT NULL,
    digest bytea NOT NULL,
    previous bytea NOT NULL,
    sealed_at timestamptz NOT NULL,
    node text NOT NULL,
    public_key bytea NOT NULL,
    signature bytea NOT NULL
);
COMMENT ON COLUMN audit_seals.to_xid IS 'the first transaction that is not in it';
COMMENT ON COLUMN audit_seals.parts IS 'for each month how many of its rows are in it, and the digest of these';
CREATE TRIGGER audit_seals_no_rewrite BEFORE UPDATE OR DELETE ON audit_seals
    FOR EACH ROW EXECUTE FUNCTION audit_events_append_only();
CREATE TRIGGER audit_seals_no_truncate BEFORE TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only();

-- The partitions, oldest first; `begins` is null for the one without a lower bound.
CREATE FUNCTION audit_partitions() RETURNS TABLE (name text, begins timestamptz, ends timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER AS $$
SELECT relname::text,
    substring(bound FROM $r$FROM \\('([^']+)'\\)$r$)::timestamptz,
    substring(bound FROM $r$TO \\('([^']+)'\\)$r$)::timestamptz
FROM (
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit_events'::regclass
) AS found
ORDER BY 3
$$;

-- Makes the partitions of this month and of `ahead` more, where they are missing. Each gets a trigger of its own
-- against TRUNCATE: the parent's does not guard it. A table that is made first and then attached waits for no reader.
CREATE FUNCTION audit_make_partitions(ahead integer DEFAULT 2) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    month timestamptz := date_trunc('month', clock_timestamp(), 'UTC');
    partition text;
    made integer := 0;
BEGIN
    IF ahead NOT BETWEEN 0 AND 12 THEN
        RAISE EXCEPTION 'partitions are made at most a year ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR number IN 0 .. ahead LOOP
        IF NOT EXISTS (SELECT FROM audit_partitions() AS p WHERE month >= coalesce(p.begins, '-infinity') AND month < p.ends) THEN
            -- Another server may be doing the same; then it has been done once the lock is ours.
            PERFORM pg_advisory_xact_lock(7421002);
            IF EXISTS (SELECT FROM audit_partitions() AS p WHERE month >= coalesce(p.begins, '-infinity') AND month < p.ends) THEN
                CONTINUE;
            END IF;
            partition := 'audit_events_' || to_char(month, 'YYYYMM');
            EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
            EXECUTE format('CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON %I '
                'FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only()', partition);
            EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                partition, month, month + interval '1 month');
            made := made + 1;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN made;
END $$;

-- Drops the oldest partition and says so in the log. Refuses one that is younger than `days`, or not wholly sealed.
CREATE FUNCTION audit_drop_partition(partition text, days integer, node text, app_version text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    oldest record;
    latest record;
    dropped bigint;
    last_seal bigint;
BEGIN
    IF days < 30 THEN
        RAISE EXCEPTION 'the audit log is kept for 30 days at least' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO oldest FROM audit_partitions() LIMIT 1;
    IF oldest.name IS DISTINCT FROM partition THEN
        RAISE EXCEPTION '% is not the oldest partition of the audit log', partition
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF oldest.ends > clock_timestamp() - make_interval(days => days) THEN
        RAISE EXCEPTION '% is younger than % days', partition, days USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOR latest IN EXECUTE format('SELECT DISTINCT ON (epoch) epoch, xid FROM %I ORDER BY epoch, xid DESC', partition) LOOP
        IF NOT EXISTS (SELECT FROM audit_seals AS s WHERE s.epoch = latest.epoch AND s.to_xid > latest.xid) THEN
            RAISE EXCEPTION '% is not wholly sealed', partition USING ERRCODE = 'insufficient_privilege';
        END IF;
    END LOOP;
    EXECUTE format('SELECT count(*) FROM %I', partition) INTO dropped;
    SELECT max(seal_no) INTO last_seal FROM audit_seals;
    EXECUTE format('DROP TABLE %I', partition);
    INSERT INTO audit_events (occurred_at, event_id, event, severity, outcome, node, app_version, actor_kind, attrs)
    VALUES (clock_timestamp(), gen_random_uuid(), 'audit.retention', 5, 'success', node, app_version, 'system',
        jsonb_build_object('partition', partition, 'ends', to_char(oldest.ends AT TIME ZONE 'UTC', 'YYYYMM'),
            'rows', dropped, 'last_seal', last_seal));
    RETURN dropped;
END $$;

REVOKE ALL ON FUNCTION audit_partitions() FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_make_partitions(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_drop_partition(text, integer, text, text) FROM PUBLIC;

-- They run with their owner's rights, so they must find nothing that a caller has put in the way.
DO $$
DECLARE
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['audit_partitions()', 'audit_make_partitions(integer)',
            'audit_drop_partition(text, integer, text, text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature, current_schema());
        EXECUTE format('ALTER FUNCTION %s SET TimeZone = %L', signature, 'UTC');
        EXECUTE format('ALTER FUNCTION %s SET DateStyle = %L', signature, 'ISO');
    END LOOP;
END $$;

SELECT audit_make_partitions();
"""

DOWN = f"""
DROP FUNCTION audit_drop_partition(text, integer, text, text);
DROP FUNCTION audit_make_partitions(integer);
DROP FUNCTION audit_partitions();
DROP TABLE audit_seals;
ALTER TABLE audit_events RENAME TO audit_events_in_parts;
ALTER INDEX pk_audit_events RENAME TO pk_audit_events_in_parts;

CREATE TABLE audit_events (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    {CONTENT.strip()}
);
INSERT INTO audit_events ({COLUMNS.strip()}) OVERRIDING SYSTEM VALUE
SELECT {COLUMNS.strip()} FROM audit_events_in_parts ORDER BY recorded_at, seq;
SELECT setval(pg_get_serial_sequence('audit_events', 'seq'), nextval('audit_events_number'), false);
DROP TABLE audit_events_in_parts;
DROP SEQUENCE audit_events_number;

CREATE INDEX ix_audit_events_event_recorded_at ON audit_events (event, recorded_at, seq);
CREATE INDEX ix_audit_events_actor_subject_recorded_at ON audit_events (actor_subject, recorded_at, seq);
CREATE INDEX ix_audit_events_address_recorded_at ON audit_events (address, recorded_at, seq);
CREATE INDEX ix_audit_events_pairing_id ON audit_events (pairing_id, recorded_at, seq);
CREATE OR REPLACE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
{COMMENTS_AND_TRIGGERS.strip()}
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
