"""A configuration from a given environment, and the faults of a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pairing_server.config import Configuration, ConfigurationError, load

SECRET = "s" * 32
URL = f"postgresql://bob:{SECRET}@db.example:5432/name"


def configuration(
    environ: Mapping[str, str], dotenv: Path = Path("/none"), **overrides: str
) -> Configuration:
    return load(environ, overrides, terminal=False, dotenv=dotenv)


def faults(environ: Mapping[str, str], dotenv: Path = Path("/none")) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        configuration(environ, dotenv)
    return str(raised.value).splitlines()


def variable(name: str) -> str:
    return f"PAIRING_{name.upper()}"
