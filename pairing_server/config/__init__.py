"""The configuration: what PAIRING_* sets. `configuration.py` declares the settings, `loader.py` reads their values.

An unknown name or a wrong value stops the start; the error names it and says what was expected.
"""

from pairing_server.config.configuration import NAMES, SETTINGS, Configuration, effective
from pairing_server.config.keys import SEAL_KEY_FILE, keyfile_of, with_keys, with_seal_key
from pairing_server.config.loader import credential_folders, load, settings_file, sources
from pairing_server.config.settings_file import ConfigurationError

__all__ = [
    "NAMES",
    "SEAL_KEY_FILE",
    "SETTINGS",
    "Configuration",
    "ConfigurationError",
    "credential_folders",
    "effective",
    "keyfile_of",
    "load",
    "settings_file",
    "sources",
    "with_keys",
    "with_seal_key",
]
