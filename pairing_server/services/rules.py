"""The rules of pairing that the configuration sets."""

from __future__ import annotations

from dataclasses import dataclass

from pairing_server.security.limits import Rate


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Durations in seconds."""

    code_ttl: int = 300
    same_user: bool = True
    guests: bool = False
    codes_per_user: int = 3
    max_live_codes: int = 50_000
    code_rate: Rate = Rate(5, 300)
    code_rate_address: Rate = Rate(100, 300)
    alarm: Rate = Rate(50, 60)
    reconnect_grace: int = 300
    name_kept: int = 600
    public_url: str = "http://127.0.0.1:8089"
