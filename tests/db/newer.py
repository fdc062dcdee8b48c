"""A release of tomorrow: this one's migrations and one more, run by alembic as that release would."""

from __future__ import annotations

import shutil
from pathlib import Path

from alembic import command
from alembic.config import Config

from pairing_server.db import migrations

NEWER = "9000"
_MIGRATION = f'''"""What tomorrow's release adds."""

from alembic import op

revision = "{NEWER}"
down_revision = "{{before}}"
{{works_with}}

def upgrade() -> None:
    op.execute("CREATE TABLE of_tomorrow (id integer)")


def downgrade() -> None:
    op.execute("DROP TABLE of_tomorrow")
'''


def copy_migrations(copied: Path, works_with: str | None) -> None:
    """Make the folder with the migrations of tomorrow, or change it."""
    if not copied.exists():
        shutil.copytree(Path(__file__).resolve().parents[2] / "migrations", copied)
    said = "" if works_with is None else f'works_with = "{works_with}"\n'
    text = _MIGRATION.format(before=migrations.head(), works_with=said)
    (copied / "versions" / f"{NEWER}_tomorrow.py").write_text(text)


def _config(url: str, folder: Path, works_with: str | None) -> Config:
    copied = folder / "migrations-of-tomorrow"
    copy_migrations(copied, works_with)
    config = Config()
    config.set_main_option("script_location", str(copied))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def upgrade(url: str, folder: Path, works_with: str | None) -> None:
    """Bring the database to tomorrow's schema, which says that it `works_with` that revision's release, or nothing."""
    command.upgrade(_config(url, folder, works_with), "head")


def downgrade(url: str, folder: Path, revision: str) -> None:
    """Take it back, with tomorrow's release."""
    command.downgrade(_config(url, folder, None), revision)
