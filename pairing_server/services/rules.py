"""The rules of pairing that the configuration sets."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True, kw_only=True)
class PairingRules:
    """Durations in seconds. The services share one object, which a reload changes in place (`take`)."""

    code_ttl: int
    same_user: bool
    guests: bool
    codes_per_user: int
    max_live_codes: int
    reconnect_grace: int
    public_url: str
    registration_open: bool
    name_kept: int = 600

    def take(self, rules: PairingRules) -> None:
        """Have the values of the other from now on."""
        for field in fields(self):
            setattr(self, field.name, getattr(rules, field.name))
