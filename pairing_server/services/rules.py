"""The rules of pairing that the configuration sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PairingRules:
    """Durations in seconds."""

    code_ttl: int
    same_user: bool
    guests: bool
    codes_per_user: int
    max_live_codes: int
    reconnect_grace: int
    public_url: str
    name_kept: int = 600
