"""The rules of pairing that the configuration sets."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pairing_server.security.limits import Policy


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


@dataclass(slots=True, kw_only=True)
class AttemptPolicies:
    """What is counted of failures, and of new accounts, against a user or an address. One object, as PairingRules.

    The names are those of the lock-outs' kinds.
    """

    redeem_user: Policy
    redeem_address: Policy
    login_user: Policy
    login_address: Policy
    register_address: Policy

    def take(self, policies: AttemptPolicies) -> None:
        """Have the values of the other from now on."""
        for field in fields(self):
            setattr(self, field.name, getattr(policies, field.name))
