"""Keys that are not set are made once, and kept in the data directory."""

from __future__ import annotations

from dataclasses import replace

from pairing_server.audit.seals import SealKey
from pairing_server.config.configuration import Configuration
from pairing_server.config.settings_file import ConfigurationError
from pairing_server.security.keyfile import NAME as KEY_FILE
from pairing_server.security.keyfile import KeyFile, check_private, make_once

SEAL_KEY_FILE = "audit-seal-key"


def keyfile_of(config: Configuration) -> KeyFile | None:
    """The file of the signing keys; None if PAIRING_JWT_KEYS is set."""
    if config.jwt_keys:
        return None
    return KeyFile(config.data_dir / KEY_FILE, group=config.data_dir_group)


def with_keys(config: Configuration) -> Configuration:
    """The configuration with signing keys: those that are set, else those of the data directory, made once.

    Raises ConfigurationError if the file is not usable, or others can read it.
    """
    file = keyfile_of(config)
    if file is None:
        return config
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"PAIRING_DATA_DIR: {config.data_dir} cannot be made: {error.strerror}"
        ) from None
    try:
        return replace(config, jwt_keys=file.read())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"PAIRING_JWT_KEYS is not set and {file.path} is not usable: {error}"
        ) from None


def with_seal_key(config: Configuration) -> Configuration:
    """The configuration with the key that seals the audit log: the one that is set, else that of the data directory, made once.

    The directory is made in any case: audit events wait in it. Raises ConfigurationError if the file is not usable, or
    others can read it.
    """
    path = config.data_dir / SEAL_KEY_FILE
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if config.audit_seal_key is None:
            raise ConfigurationError(
                f"PAIRING_AUDIT_SEAL_KEY is not set and {path} is not usable: {error}"
            ) from None
    if config.audit_seal_key is not None:
        return config
    try:
        make_once(path, lambda: SealKey.generate()[1])
        check_private(path, path.stat(), group=config.data_dir_group)
        return replace(config, audit_seal_key=SealKey.parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"PAIRING_AUDIT_SEAL_KEY is not set and {path} is not usable: {error}"
        ) from None
