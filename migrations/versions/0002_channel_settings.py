"""The settings document of each channel, so that it survives a restart."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The previous release neither knows the table nor is in its way: what it deletes takes the document along.
UP = (
    """
    CREATE TABLE channel_settings (
        pairing_id uuid CONSTRAINT pk_channel_settings PRIMARY KEY
            CONSTRAINT fk_channel_settings_pairing_id REFERENCES pairings (id) ON DELETE CASCADE,
        epoch text NOT NULL,
        rev bigint NOT NULL,
        document bytea NOT NULL
    )
    """,
    "COMMENT ON COLUMN channel_settings.epoch IS 'the life of the channel that wrote it'",
    "COMMENT ON COLUMN channel_settings.document IS 'a JSON object, its values as they came'",
)


def upgrade() -> None:
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE channel_settings")
