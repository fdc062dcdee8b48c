"""The settings of a connection to the database go into its URLs, which everything that connects gets."""

from __future__ import annotations

from dataclasses import replace

from pairing_server.config.configuration import Configuration
from pairing_server.db.connection_parameters import password_in, with_parameters

_URL, _FILE, _COMMAND = (f"PAIRING_DATABASE_{name}" for name in ("URL", "PASSWORD_FILE", "PASSWORD_COMMAND"))


def with_connection_settings(config: Configuration) -> Configuration:
    """The configuration whose URLs say how long a connection may take, and where the password is asked for.

    Raises ValueError where they contradict each other.
    """
    timeout = config.database_connect_timeout
    file, command = config.database_password_file, config.database_password_command
    if file and command:
        raise ValueError(f"{_COMMAND}: {_FILE} is set, too; one of them has the password")
    if (file or command) and config.database_url and password_in(config.database_url):
        raise ValueError(f"{_FILE if file else _COMMAND}: {_URL} has a password itself; take it out there")
    timed = {"connect_timeout": str(timeout)} if timeout else {}
    source = {"password_file": str(file)} if file else {"password_command": command} if command else {}

    def completed(url: str | None) -> str | None:
        if url is None:
            return None
        return with_parameters(url, timed if password_in(url) else timed | source)

    return replace(
        config,
        database_url=completed(config.database_url),
        migrate_database_url=completed(config.migrate_database_url),
    )
