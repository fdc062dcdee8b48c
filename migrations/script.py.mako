"""${message}"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
# The oldest revision whose release still works with this schema: its statements, and its start. Never older than what the
# migration before says. If nothing before works with it, this revision.
works_with = ${repr(down_revision)}


def upgrade() -> None:
    # Short locks only, and nothing the previous release cannot live with: both run side by side for a while.
    ${upgrades if upgrades else "op.execute('')"}


def downgrade() -> None:
    ${downgrades if downgrades else "op.execute('')"}
