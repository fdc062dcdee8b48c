"""The schema, as SQLAlchemy Core tables. Migrations build it; a test compares the two.

Permissions are not here: the services decide them.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.types import UserDefinedType

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=CONVENTION)


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id, by which the audit log is sealed."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", Text, nullable=False),
    Column(
        "username_key", Text, nullable=False, unique=True, comment="the name as compared: NFKC, case-folded"
    ),
    Column("password_hash", Text, nullable=False, comment="argon2id, parameters included"),
    Column("role", Text, nullable=False, server_default="user"),
    _instant("created_at"),
    _instant("disabled_at", nullable=True),
    CheckConstraint("role IN ('user', 'auditor', 'admin')", name="role"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("subject", Text, nullable=False, comment="whose token used this session id first"),
    Column("device_type", Text, nullable=False),
    _instant("bound_at"),
    _instant("seen_at"),
    Index("ix_sessions_seen_at", "seen_at"),
)

LIVE_STATES = ("pending", "redeemed", "active", "waiting")

pairings = Table(
    "pairings",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("code_mac", LargeBinary, unique=True, comment="HMAC of the code; null once the name is released"),
    Column("state", Text, nullable=False),
    Column("desktop_session", Text, nullable=False),
    Column("desktop_user", Text, comment="null: a guest, until the first join claims the seat"),
    Column("mobile_session", Text),
    Column("mobile_user", Text),
    _instant("created_at"),
    _instant("expires_at"),
    _instant("redeemed_at", nullable=True),
    _instant("activated_at", nullable=True),
    _instant("seen_at", nullable=True),
    _instant("ended_at", nullable=True),
    Column("end_reason", Text),
    Column("node", Uuid, comment="the server that has its channel"),
    Column(
        "desktop_joined",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether the desktop is connected to that server",
    ),
    Column(
        "mobile_joined",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether the mobile is connected to that server",
    ),
    CheckConstraint(
        "state IN ('pending', 'redeemed', 'active', 'waiting', 'closed', 'expired', 'superseded')",
        name="state",
    ),
    Index("ix_pairings_desktop_session", "desktop_session", postgresql_where=text("ended_at IS NULL")),
    Index("ix_pairings_desktop_user", "desktop_user", postgresql_where=text("ended_at IS NULL")),
    Index("ix_pairings_mobile_user", "mobile_user", postgresql_where=text("ended_at IS NULL")),
    Index("ix_pairings_expires_at", "expires_at", postgresql_where=text("state = 'pending'")),
    Index("ix_pairings_redeemed_at", "redeemed_at", postgresql_where=text("state = 'redeemed'")),
    Index(
        "ix_pairings_activated_at", "activated_at", postgresql_where=text("state IN ('active', 'waiting')")
    ),
    Index("ix_pairings_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    # No index has `seen_at`, and its page has room, so that it is noted in place.
    postgresql_with={"fillfactor": 80},
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Uuid, primary_key=True, comment="drawn at each start"),
    Column(
        "name",
        Text,
        nullable=False,
        comment="host, port and folder: who has it takes the place of an earlier start",
    ),
    Column("beat_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
)

# Triggers on `pairings` write it; each server polls it.
pairing_changes = Table(
    "pairing_changes",
    metadata,
    Column(
        "xid",
        Xid8(),
        primary_key=True,
        comment="the transaction that has redeemed, ended or deleted it",
    ),
    Column("pairing_id", Uuid, primary_key=True),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Index("ix_pairing_changes_recorded_at", "recorded_at"),
)

logins = Table(
    "logins",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("login_id", Text, primary_key=True),
    _instant("created_at"),
    _instant("expires_at"),
    _instant("seen_at"),
    Column("address", Text, comment="where it was last used from"),
    Index("ix_logins_login_id", "login_id"),
    Index("ix_logins_expires_at", "expires_at"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("issuer", Text, primary_key=True),
    Column(
        "name", Text, primary_key=True, comment="a login's id, a token's id, or a subject, as the kind says"
    ),
    _instant("revoked_at"),
    Column(
        "expires_at",
        DateTime(timezone=True),
        nullable=False,
        comment="from then on no such token would be taken anyway",
    ),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("subject", Text, comment="whose login it was"),
    CheckConstraint("kind IN ('login', 'token', 'user')", name="kind"),
    Index("ix_revocations_recorded_at", "recorded_at"),
    Index("ix_revocations_expires_at", "expires_at"),
)

channel_settings = Table(
    "channel_settings",
    metadata,
    Column("pairing_id", Uuid, ForeignKey(pairings.c.id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Text, nullable=False, comment="the life of the channel that wrote it"),
    Column("rev", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False, comment="a JSON object, its values as they came"),
)

spent_tokens = Table(
    "spent_tokens",
    metadata,
    Column("token_id", Text, primary_key=True),
    _instant("spent_at"),
    _instant("expires_at"),
    Index("ix_spent_tokens_expires_at", "expires_at"),
)

confirmations = Table(
    "confirmations",
    metadata,
    Column("pairing_id", Uuid, ForeignKey(pairings.c.id, ondelete="CASCADE"), primary_key=True),
    Column("mobile_session", Text, nullable=False),
    Column("mobile_user", Text),
    Column("device", Text, nullable=False, comment="what the phone calls itself, for people"),
    Column("address", Text),
    _instant("asked_at"),
    _instant("confirmed_at", nullable=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True, comment="a subject, a username or an address, as the kind says"),
    Column("times", ARRAY(DateTime(timezone=True)), nullable=False, comment="what counts, oldest first"),
    Column(
        "level", SmallInteger, nullable=False, server_default=text("0"), comment="how many locks in a row"
    ),
    _instant("locked_until", nullable=True),
    _instant("touched_at"),
    # As for pairings: `touched_at` is in no index.
    postgresql_with={"fillfactor": 80},
)

audit_events_number = Sequence("audit_events_number", data_type=BigInteger, metadata=metadata)

# Partitioned by month; the migrations make the partitions, and their triggers.
audit_events = Table(
    "audit_events",
    metadata,
    Column(
        "recorded_at",
        DateTime(timezone=True),
        nullable=False,
        primary_key=True,
        server_default=text("clock_timestamp()"),
    ),
    Column(
        "seq",
        BigInteger,
        audit_events_number,
        primary_key=True,
        server_default=audit_events_number.next_value(),
    ),
    Column("xid", Xid8(), nullable=False, server_default=text("pg_current_xact_id()")),
    Column(
        "epoch",
        Integer,
        nullable=False,
        server_default="1",
        comment="raised when transaction ids begin anew, after a logical restore",
    ),
    _instant("occurred_at"),
    Column("event_id", Uuid, nullable=False),
    Column("event", Text, nullable=False),
    Column("severity", SmallInteger, nullable=False, comment="syslog's: 0 emergency to 7 debug"),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("node", Text, nullable=False),
    Column("app_version", Text, nullable=False),
    Column("actor_subject", Text),
    Column("actor_kind", Text, nullable=False),
    Column("auth_method", Text),
    Column("address", INET, comment="the client's, after the proxy rules"),
    Column("request_id", Uuid),
    Column("connection_id", Uuid),
    Column("pairing_id", Uuid),
    Column("count", Integer, nullable=False, server_default="1"),
    Column("attrs", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    CheckConstraint("severity BETWEEN 0 AND 7", name="severity"),
    CheckConstraint("outcome IN ('success', 'failure', 'denied', 'error')", name="outcome"),
    CheckConstraint("actor_kind IN ('user', 'device', 'admin', 'system', 'anonymous')", name="actor_kind"),
    CheckConstraint("pg_column_size(attrs) <= 4096", name="attrs_size"),
    Index("ix_audit_events_epoch_xid", "epoch", "xid"),
    # From each kind of event to the next, and within one, or several, in the order of time.
    Index(
        "ix_audit_events_event_outcome_severity",
        *("event", "outcome", "severity", "recorded_at", "seq"),
    ),
    # Rows lie in the order of their numbers, nearly: a range for each few pages finds one.
    Index(
        "ix_audit_events_seq",
        "seq",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 16, "autosummarize": "on"},
    ),
    # What most rows lack or have alike is not in the index: it costs them nothing.
    Index(
        "ix_audit_events_actor_subject_recorded_at",
        *("actor_subject", "recorded_at", "seq"),
        postgresql_where=text("actor_subject IS NOT NULL"),
    ),
    Index(
        "ix_audit_events_address_recorded_at",
        *("address", "recorded_at", "seq"),
        postgresql_where=text("address IS NOT NULL"),
    ),
    Index("ix_audit_events_pairing_id", "pairing_id", postgresql_where=text("pairing_id IS NOT NULL")),
    Index(
        "ix_audit_events_connection_id", "connection_id", postgresql_where=text("connection_id IS NOT NULL")
    ),
    postgresql_partition_by="RANGE (recorded_at)",
)
# The columns that the server fills. The database fills the others, so that the server cannot choose them.
EVENT_COLUMNS = tuple(c.name for c in audit_events.c if c.name not in ("recorded_at", "seq", "xid", "epoch"))

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("seal_no", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("from_xid", Xid8(), nullable=False),
    Column("to_xid", Xid8(), nullable=False, comment="the first transaction that is not in it"),
    Column("n_rows", BigInteger, nullable=False),
    Column(
        "parts",
        JSONB,
        nullable=False,
        comment="for each month how many of its rows are in it, and the digest of these",
    ),
    Column("digest", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    _instant("sealed_at"),
    Column("node", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
