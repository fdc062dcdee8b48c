"""What a declaration of a setting says, and how its value is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

PREFIX = "PAIRING_"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting. `parse` turns its text into its value; ValueError says what was expected.

    `default_text` describes a default that depends on other things, `unset` what `pairing-server config` shows where
    nothing is set. `reloadable`: SIGHUP takes over a new value. `multiline`: its text may have several lines. `name` is that
    of the field.
    """

    parse: Callable[[str], T]
    default: T
    meaning: str
    unit: str = ""
    default_text: str = ""
    unset: str = ""
    secret: bool = False
    reloadable: bool = False
    multiline: bool = False
    name: str = ""

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def explanation(self) -> str:
        """What the setting means, its unit and whether it is reloadable, in one line."""
        notes = [self.unit, "reloaded by SIGHUP" if self.reloadable else "needs a restart"]
        return f"{self.meaning} ({', '.join(filter(None, notes))})"

    def text(self, value: Any) -> str:
        """The value as text, as it can be set; of a secret only whether it is set."""
        if self.secret:
            return "(set, not shown)" if value else self.unset
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)


def declare(parse: Callable[[str], T], default: T, meaning: str, **details: Any) -> T:
    """A field of a dataclass with that default, and with the Setting in its metadata."""
    setting = Setting(parse, default, meaning, **details)
    declared: T = field(default=default, repr=not setting.secret, metadata={"setting": setting})
    return declared
