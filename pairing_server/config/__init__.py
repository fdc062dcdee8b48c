"""The settings: read from PAIRING_* of the environment, credential files and a file of settings, into a frozen value.

A wrong or unknown name or value stops the start, by name, with what was expected.
"""

from pairing_server.config.configuration import NAMES, PREFIX, Configuration, effective
from pairing_server.config.keys import SEAL_KEY_FILE, keyfile_of, with_keys, with_seal_key
from pairing_server.config.loader import (
    ConfigurationError,
    credential_folders,
    load,
    settings_file,
)

__all__ = [
    "NAMES",
    "PREFIX",
    "SEAL_KEY_FILE",
    "Configuration",
    "ConfigurationError",
    "credential_folders",
    "effective",
    "keyfile_of",
    "load",
    "settings_file",
    "with_keys",
    "with_seal_key",
]
