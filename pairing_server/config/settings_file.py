"""Reads the file of settings, `.env` or another: lines of NAME=value, as shells and Docker write them.

A line that is not understood is a fault, whatever it is about: half of a file is not what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from pairing_server.config.configuration import NAMES
from pairing_server.config.setting import PREFIX

# Names the file of settings that is read instead of `.env`. It is not a setting itself.
FILE = "PAIRING_SETTINGS_FILE"

_NAME = re.compile(r"\s*(?:export\s+)?([A-Za-z_-]+)")


@dataclass(frozen=True, slots=True)
class Given:
    """A setting's text as it is given. `source`: where, if that is not the environment."""

    text: str
    source: str = ""


class ConfigurationError(Exception):
    """Every fault found, one a line, each with the setting's name and what was expected."""


def read(path: Path, environ: Mapping[str, str]) -> dict[str, Given]:
    """What a file sets, by variable; other programs' variables too. `${NAME}` in a value is that variable.

    Raises ConfigurationError with every fault, and OSError and UnicodeDecodeError.
    """
    with path.open(encoding="utf-8") as stream:
        bindings = list(parse_stream(stream))
    found: dict[str, Given] = {}
    faults = []
    for binding in bindings:
        source = f"{path}, line {_line(binding)}"
        if binding.error or (binding.key is not None and binding.value is None):
            faults.append(f"{source}: {_beginning(binding)}expected NAME=value; quotes must be closed")
        elif binding.key is not None:
            known = {name: given.text for name, given in found.items()} | dict(environ)
            text = ""
            for part in parse_variables(binding.value or ""):
                if isinstance(part, Variable) and part.default is None and part.name not in known:
                    faults.append(f"{source}: {binding.key} uses ${{{part.name}}}, which is not set")
                text += part.resolve(known)
            found[binding.key] = Given(text, source)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return found


def _line(binding: Binding) -> int:
    """The line of the name: the parser counts from the empty lines before it."""
    before = binding.original.string[: -len(binding.original.string.lstrip()) or None]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", before))


def _beginning(binding: Binding) -> str:
    """How the line begins, if that is a name: what follows may be a secret."""
    name = _NAME.match(binding.original.string)
    return f"{name[1]}…: " if name and _begins_like_ours(name[1]) else ""


def meant(name: str) -> str | None:
    """The setting that was probably meant by a name that is none; None if it seems to be another program's."""
    if name in NAMES or name == FILE or not _begins_like_ours(name):
        return None
    similar = get_close_matches(name.upper(), [*NAMES, FILE], 1, cutoff=0.8)
    return similar[0] if similar else None


def _begins_like_ours(name: str) -> bool:
    return SequenceMatcher(None, name.upper()[: len(PREFIX) - 1], PREFIX[:-1]).ratio() >= 0.8
